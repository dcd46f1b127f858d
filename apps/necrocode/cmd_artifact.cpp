// necrocode artifact: the Artifact Store from the command line.
#include "commands.hpp"
#include "necrocode/base/exit_code.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "paging.hpp"
#include "runtime.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

struct ArtifactArguments {
  CommonOptions common;
  std::string file;
  std::string artifact;
  std::string type;
  std::string task;
  std::string spec;
  std::string tag;
  std::string out;
  std::string mime_type;
  bool follow = false;
  ListLimit limit;
};

ArtifactArguments arguments;
constexpr const char* kWhich = "an artifact's URI or id";

Json info_json(const ArtifactInfo& info) {
  return Json::object({{"uri", info.uri},
                       {"id", info.id},
                       {"type", info.type},
                       {"spec_name", info.spec_name},
                       {"task_id", info.task_id},
                       {"name", info.name},
                       {"size_bytes", info.size_bytes},
                       {"sealed", info.sealed},
                       {"sha256", info.sealed ? Json(info.sha256) : Json()},
                       {"created_at", to_rfc3339(info.created_at)},
                       {"metadata", info.metadata},
                       {"tags", info.tags}});
}

// What the user named: a URI as the store gave it, or the id alone.
std::string uri_in(const ArtifactStoreClient& store) {
  if (arguments.artifact.find('/') != std::string::npos) return arguments.artifact;
  return store.base_url() + "/artifacts/" + percent_encode(arguments.artifact);
}

// The client sends nothing to another store; here that is a mistake in the command line.
void refusing_others(const std::function<void()>& download) {
  try {
    download();
  } catch (const SecurityError& error) {
    throw ConfigError(error.summary() +
                      "; give the id alone (its last part) to ask the configured store");
  }
}

void report(const std::string& line, const Json& document) {
  if (arguments.common.json) {
    print_json(document);
  } else {
    print_line(line);
  }
}

int put() {
  Runtime runtime(arguments.common);
  Json metadata =
      Json::object({{"name", std::filesystem::path(arguments.file).filename().string()}});
  if (!arguments.task.empty()) metadata.set("task_id", arguments.task);
  if (!arguments.spec.empty()) metadata.set("spec_name", arguments.spec);
  if (!arguments.mime_type.empty()) metadata.set("mime_type", arguments.mime_type);
  const std::string uri = runtime.artifacts().upload_file(arguments.type, arguments.file, metadata);
  report(uri, Json::object({{"uri", uri}}));
  return 0;
}

int get() {
  Runtime runtime(arguments.common);
  ArtifactStoreClient store = runtime.artifacts();
  const std::string uri = uri_in(store);
  refusing_others([&] { store.download_to(uri, arguments.out); });
  report(arguments.out, Json::object({{"uri", uri}, {"file", arguments.out}}));
  return 0;
}

int cat() {
  Runtime runtime(arguments.common);
  ArtifactStoreClient store = runtime.artifacts();
  refusing_others([&] { print_raw(store.download(uri_in(store))); });
  return 0;
}

int follow() {
  const StopOnSignal signals;
  Runtime runtime(arguments.common);
  ArtifactStoreClient store = runtime.artifacts();
  const CallContext context = signals.context();
  bool whole = false;
  refusing_others([&] { whole = store.follow(uri_in(store), print_raw, context); });
  return !whole && context.cancelled() ? static_cast<int>(ExitCode::kCancelled) : 0;
}

int info() {
  Runtime runtime(arguments.common);
  ArtifactStoreClient store = runtime.artifacts();
  print_json(info_json(store.get_metadata(uri_in(store))));
  return 0;
}

int list() {
  Runtime runtime(arguments.common);
  ArtifactQuery query;
  query.spec = arguments.spec;
  query.task = arguments.task;
  query.type = arguments.type;
  query.tag = arguments.tag;
  ArtifactStoreClient store = runtime.artifacts();
  const ArtifactPage page = list_pages(
      [&store](const ArtifactQuery& one) { return store.list(one); }, query, arguments.limit);
  const bool more = page.next_cursor.has_value();
  if (arguments.common.json) {
    Json items = Json::array();
    for (const ArtifactInfo& item : page.items) items.push_back(info_json(item));
    print_json(Json::object({{"items", std::move(items)}, {"more", more}}));
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const ArtifactInfo& item : page.items) {
    rows.push_back({item.type, std::to_string(item.size_bytes), to_rfc3339(item.created_at),
                    item.task_id, item.name, item.uri});
  }
  print_table({"TYPE", "BYTES", "CREATED", "TASK", "NAME", "URI"}, rows);
  if (more) print_line(kMoreLine);
  return 0;
}

int remove() {
  Runtime runtime(arguments.common);
  ArtifactStoreClient store = runtime.artifacts();
  const std::string id = store.get_metadata(uri_in(store)).id;
  store.remove(id);
  report("removed " + id, Json::object({{"removed", id}}));
  return 0;
}

Cli& sub(Cli& parent, const std::string& name, const std::string& help,
         std::function<int()> action) {
  return arguments.common.service_command(parent, name, help, {Service::kArtifacts},
                                          std::move(action));
}

}  // namespace

void declare_artifact(Cli& cli) {
  Cli& artifact = cli.command("artifact", "Artifacts: put, get, look, remove");
  sub(artifact, "put", "Upload a file", put)
      .positional("type", arguments.type, "diff, log, test or another plain name")
      .input_file("file", arguments.file, "file")
      .option("--task", arguments.task, "task id")
      .option("--spec", arguments.spec, "spec name")
      .option("--mime-type", arguments.mime_type, "content type");
  sub(artifact, "get", "Download to a file", get)
      .positional("artifact", arguments.artifact, kWhich)
      .positional("file", arguments.out, "where to");
  Cli& printing = artifact.command("cat", "Print an artifact");
  arguments.common.declare(printing);
  arguments.common.declare_services(printing, {Service::kArtifacts});
  printing.positional("artifact", arguments.artifact, kWhich)
      .flag("--follow", arguments.follow, "of a log that grows: until it is sealed")
      .action([] { return arguments.follow ? follow() : cat(); });
  sub(artifact, "info", "What the store knows of an artifact", info)
      .positional("artifact", arguments.artifact, kWhich);
  Cli& listing = sub(artifact, "list", "Artifacts by spec, task, type or tag", list);
  listing.option("--spec", arguments.spec, "of this spec")
      .option("--task", arguments.task, "of this task")
      .option("--type", arguments.type, "of this type")
      .option("--tag", arguments.tag, "with this tag");
  arguments.limit.declare(listing);
  sub(artifact, "rm", "Remove an artifact", remove)
      .positional("artifact", arguments.artifact, kWhich);
}

}  // namespace necrocode::app
