// necrocode backup, necrocode restore: the task registry of a data folder, to one file and back.
#include <filesystem>
#include <functional>

#include "commands.hpp"
#include "necrocode/base/exit_code.hpp"
#include "necrocode/db/backup.hpp"
#include "necrocode/registry/backup.hpp"
#include "runtime.hpp"
#include "service_host.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

CommonOptions common;
std::string file;
bool force = false;

Json summary_json(const registry::BackupSummary& summary) {
  return Json::object({{"file", file},
                       {"schema_version", summary.schema_version},
                       {"bytes", summary.bytes},
                       {"tasks", summary.tasks},
                       {"events", summary.events}});
}

std::string counts_of(const registry::BackupSummary& summary) {
  return std::to_string(summary.tasks) + " tasks and " + std::to_string(summary.events) +
         " events, schema version " + std::to_string(summary.schema_version);
}

/// Runs `work`; what is wrong with a database is a check that failed.
int checked(const std::function<void()>& work) {
  try {
    work();
    return static_cast<int>(ExitCode::kDone);
  } catch (const db::UnusableDatabase& error) {
    note("necrocode: " + std::string(error.what()));
    return static_cast<int>(ExitCode::kTestsFailed);
  }
}

void backup() {
  const std::filesystem::path database = registry_database(common.load().config.data_dir);
  if (!std::filesystem::exists(database)) {
    throw ConfigError("there is no task registry in " + database.parent_path().string() +
                      "; --data names another folder");
  }
  if (!force && std::filesystem::exists(file)) {
    throw ConfigError(file + " is there already; --force replaces it");
  }
  const registry::BackupSummary summary = registry::backup_registry(database, file, force);
  if (common.json) {
    print_json(summary_json(summary));
  } else {
    print_line(file + ": " + counts_of(summary) + ", " + std::to_string(summary.bytes) + " bytes");
  }
}

void restore() {
  const std::filesystem::path folder = common.load().config.data_dir;
  require_folder("--data", folder);
  const registry::RestoreSummary restored =
      registry::restore_registry(file, registry_database(folder));
  if (common.json) {
    print_json(summary_json(restored.backup).set("kept", restored.kept.string()));
  } else {
    print_line(folder.string() + ": " + counts_of(restored.backup) +
               (restored.kept.empty() ? "" : "; what was there is " + restored.kept.string()));
  }
}

}  // namespace

void declare_backup(Cli& cli) {
  Cli& saving = cli.command("backup", "The task registry, also a running one, to one file");
  common.declare(saving);
  common.declare_json(saving);
  saving.action([] { return checked(backup); })
      .positional("file", file, "to write")
      .flag("--force", force, "replace FILE");
  Cli& restoring = cli.command("restore", "A task registry from the file that `backup` wrote");
  common.declare(restoring);
  common.declare_json(restoring);
  restoring.action([] { return checked(restore); }).input_file("file", file, "that `backup` wrote");
}

}  // namespace necrocode::app
