#include "necrocode/runner/run_folder.hpp"

#include <fstream>
#include <string>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/runner/run_log.hpp"
#include "necrocode/runner/run_result.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kDraftPrefix = ".necrocode-tmp-";  // of write_file_atomic()

bool has_our_result(const fs::path& run_dir) {
  std::error_code error;
  if (!fs::is_regular_file(run_dir / "result.json", error)) return false;
  const auto result = Json::try_parse(read_file(run_dir / "result.json", 16 * limits::kMiB));
  return result && (*result)["type"] == Json("result") && (*result)["phase"].is_string() &&
         ((*result)["runner_id"].string_or("").starts_with("runner-") ||
          (*result)["run_id"].string_or("").starts_with("exec-"));
}

// As of a run that was killed: every log of ours begins with the first phase.
bool has_our_log(const fs::path& run_dir) {
  std::error_code error;
  if (!fs::is_regular_file(fs::symlink_status(run_dir / "run.log", error))) return false;
  std::ifstream log(run_dir / "run.log");
  std::string line;
  std::getline(log, line);
  return line.ends_with(" phase " + std::string(to_string(Phase::kValidate)));
}

}  // namespace

void remove_drafts(const fs::path& folder, std::chrono::seconds age) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (!entry->path().filename().string().starts_with(kDraftPrefix)) continue;
    std::error_code gone;  // it may be, by now
    const auto written = entry->last_write_time(gone);
    if (!gone && fs::file_time_type::clock::now() - written >= age) fs::remove(*entry, gone);
  }
}

void remove_leftovers(const fs::path& run_dir) {
  remove_drafts(run_dir, std::chrono::seconds(0));
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(run_dir, error)) {
    if (entry.path().filename().string().starts_with(kScratchPrefix)) remove_tree(entry.path());
  }
}

void remove_earlier_results(const fs::path& run_dir) {
  if (!has_our_result(run_dir) && !has_our_log(run_dir)) return;
  if (is_being_written(run_dir / "run.log")) return;  // the run that comes will be refused
  std::error_code error;
  for (const char* name : {"result.json", "diff.patch", "users-work.patch", "tests.json",
                           "junit.xml", "transcript.jsonl", "exchanges.jsonl"}) {
    fs::remove(run_dir / name, error);
  }
}

}  // namespace necrocode::runner
