// Lines of any bytes: tasks that a registry can read, or one error with its lines; split, each task
// is in one call, after those that it depends on.
#include <set>
#include <string>

#include "fuzz/fuzz.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/registry/json_lines.hpp"
#include "necrocode/registry/model.hpp"

namespace {

using namespace necrocode;

std::string id_of(const Json& taskset, const std::string& name) {
  if (name.find(':') != std::string::npos) return name;
  return taskset["spec_name"].string_or("") + ":" + name;
}

void check_split(const std::vector<Json>& tasksets) {
  std::set<std::string> given;
  for (const Json& taskset : tasksets) {
    for (const Json& task : taskset["tasks"].items()) {
      JsonFields reader(task);
      registry::TaskSpec::from_json(reader);
      FUZZ_CHECK(reader.errors().empty());
      FUZZ_CHECK(given.insert(id_of(taskset, task["id"].string_or(""))).second);
    }
  }
  try {
    std::set<std::string> submitted;
    for (const Json& call : registry::split_submissions(tasksets)) {
      for (const Json& task : call["tasks"].items()) {
        FUZZ_CHECK(submitted.insert(id_of(call, task["id"].string_or(""))).second);
      }
      for (const Json& task : call["tasks"].items()) {
        for (const Json& name : task["dependencies"].items()) {
          const std::string id = id_of(call, name.string_or(""));
          FUZZ_CHECK(given.count(id) == 0 || submitted.count(id) == 1);
        }
      }
    }
    FUZZ_CHECK(submitted == given);
  } catch (const TaskContextValidationError& error) {
    FUZZ_CHECK(std::string(error.what()).find("cycle") != std::string::npos);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text = test::as_text(data, size);
  if (text.empty()) return 0;
  registry::JsonLinesOptions options;
  options.copy = (text.front() & 1) != 0;
  options.reopen_failed = (text.front() & 2) != 0;
  options.spec_name = "s";
  text.remove_prefix(1);
  try {
    check_split(registry::parse_json_lines(text, options).tasksets);
  } catch (const TaskContextValidationError& error) {
    FUZZ_CHECK(!error.info().fields.empty());
  }
  return 0;
}
