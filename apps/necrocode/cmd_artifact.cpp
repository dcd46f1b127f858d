// necrocode artifact: the Artifact Store from the command line.
#include "commands.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "runtime.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

struct ArtifactArguments {
  CommonOptions common;
  std::string file;
  std::string uri;
  std::string type;
  std::string task;
  std::string spec;
  std::string tag;
  std::string out;
  std::string mime_type;
  int limit = 100;
};

ArtifactArguments arguments;

Json info_json(const ArtifactInfo& info) {
  return Json::object({{"uri", info.uri},
                       {"id", info.id},
                       {"type", info.type},
                       {"size_bytes", info.size_bytes},
                       {"sha256", info.sha256},
                       {"created_at", to_rfc3339(info.created_at)},
                       {"metadata", info.metadata},
                       {"tags", info.tags}});
}

int put() {
  Runtime runtime(arguments.common);
  Json metadata =
      Json::object({{"name", std::filesystem::path(arguments.file).filename().string()}});
  if (!arguments.task.empty()) metadata.set("task_id", arguments.task);
  if (!arguments.spec.empty()) metadata.set("spec_name", arguments.spec);
  if (!arguments.mime_type.empty()) metadata.set("mime_type", arguments.mime_type);
  print_line(runtime.artifacts().upload_file(arguments.type, arguments.file, metadata));
  return 0;
}

int get() {
  Runtime runtime(arguments.common);
  runtime.artifacts().download_to(arguments.uri, arguments.out);
  print_line(arguments.out);
  return 0;
}

int cat() {
  Runtime runtime(arguments.common);
  print_raw(runtime.artifacts().download(arguments.uri));
  return 0;
}

int info() {
  Runtime runtime(arguments.common);
  print_json(info_json(runtime.artifacts().get_metadata(arguments.uri)));
  return 0;
}

int list() {
  Runtime runtime(arguments.common);
  ArtifactQuery query;
  query.spec = arguments.spec;
  query.task = arguments.task;
  query.type = arguments.type;
  query.tag = arguments.tag;
  query.limit = arguments.limit;
  const ArtifactPage page = runtime.artifacts().list(query);
  if (arguments.common.json) {
    Json items = Json::array();
    for (const ArtifactInfo& item : page.items) items.push_back(info_json(item));
    print_json(Json::object({{"items", std::move(items)}, {"next_cursor", page.next_cursor}}));
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const ArtifactInfo& item : page.items) {
    rows.push_back({item.type, std::to_string(item.size_bytes), to_rfc3339(item.created_at),
                    item.metadata["task_id"].string_or(""), item.metadata["name"].string_or(""),
                    item.uri});
  }
  print_table({"TYPE", "BYTES", "CREATED", "TASK", "NAME", "URI"}, rows);
  return 0;
}

int remove() {
  Runtime runtime(arguments.common);
  ArtifactStoreClient store = runtime.artifacts();
  store.remove(arguments.uri.starts_with("http") ? store.get_metadata(arguments.uri).id
                                                 : arguments.uri);
  print_line("removed");
  return 0;
}

Cli& sub(Cli& parent, const std::string& name, const std::string& help,
         std::function<int()> action) {
  return arguments.common.service_command(parent, name, help, std::move(action));
}

}  // namespace

void declare_artifact(Cli& cli) {
  Cli& artifact = cli.command("artifact", "Artifacts: put, get, look, remove");
  sub(artifact, "put", "Upload a file", put)
      .positional("type", arguments.type, "diff, log, test or another plain name")
      .positional("file", arguments.file, "file")
      .option("--task", arguments.task, "task id")
      .option("--spec", arguments.spec, "spec name")
      .option("--mime-type", arguments.mime_type, "content type");
  sub(artifact, "get", "Download to a file", get)
      .positional("uri", arguments.uri, "artifact URI")
      .positional("file", arguments.out, "where to");
  sub(artifact, "cat", "Print an artifact", cat).positional("uri", arguments.uri, "artifact URI");
  sub(artifact, "info", "What the store knows of an artifact", info)
      .positional("uri", arguments.uri, "artifact URI");
  sub(artifact, "list", "Artifacts by spec, task, type or tag", list)
      .option("--spec", arguments.spec, "of this spec")
      .option("--task", arguments.task, "of this task")
      .option("--type", arguments.type, "of this type")
      .option("--tag", arguments.tag, "with this tag")
      .option("--limit", arguments.limit, 1, 1000, "at most so many");
  sub(artifact, "rm", "Remove an artifact", remove)
      .positional("uri", arguments.uri, "artifact URI or id");
}

}  // namespace necrocode::app
