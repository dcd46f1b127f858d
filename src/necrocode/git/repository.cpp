#include "necrocode/git/repository.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <exception>

#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/git/index_file.hpp"
#include "necrocode/git/work_tree.hpp"

namespace necrocode::git {

namespace fs = std::filesystem;

/// One git child.
struct Git::Invocation {
  std::vector<std::string> args;  ///< the verb first
  std::vector<std::string> repository_args;
  std::vector<std::string> repository_env;
  std::string input;
  std::string remote_url;  ///< of a verb that talks to a remote: gets the credentials for it
  fs::path working_directory = "/";
  bool reads_only = false;
};

namespace {

constexpr std::string_view kHeads = "refs/heads/";
constexpr std::size_t kConfigBytes = 64 * limits::kKiB;
constexpr std::size_t kRemoteOutputBytes = 16 * limits::kMiB;  // what a remote may tell us
constexpr std::size_t kErrorDetailBytes = 2 * limits::kKiB;

std::size_t output_bytes_max(const std::string& remote_url) {
  return remote_url.empty() ? limits::kGitOutputBytes : kRemoteOutputBytes;
}

// Whatever the git directory says, these win.
const std::array kHardening = {
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.pager=cat",
    "core.editor=false",
    "core.askPass=false",
    "core.untrackedCache=false",
    "core.protectHFS=true",
    "core.logAllRefUpdates=false",
    "protocol.ext.allow=never",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    "diff.ignoreSubmodules=all",
    "commit.gpgSign=false",
    "push.gpgSign=false",
    "push.recurseSubmodules=no",
    "fetch.recurseSubmodules=false",
    "fetch.writeCommitGraph=false",
    "credential.helper=",
    "http.lowSpeedLimit=100",
    "http.lowSpeedTime=60",
};

// How this machine reaches the web; only for children that do.
const std::array kHttpEnvironment = {"http_proxy", "https_proxy",   "HTTPS_PROXY",
                                     "all_proxy",  "ALL_PROXY",     "no_proxy",
                                     "NO_PROXY",   "SSL_CERT_FILE", "SSL_CERT_DIR"};

// What init() writes; `url` lines are checked by their shape.
const std::array<std::string_view, 7> kConfigLines = {
    "[core]",
    "\trepositoryformatversion = 0",
    "\tfilemode = true",
    "\tbare = true",
    "\tbare = false",
    "[remote \"origin\"]",
    "\tfetch = +refs/heads/*:refs/remotes/origin/*",
};
constexpr std::string_view kUrlLine = "\turl = \"";

std::string config_text(bool bare, const std::string& origin) {
  std::string text = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = ";
  text += bare ? "true\n" : "false\n";
  if (!origin.empty()) {
    const std::string quoted = replace_all(replace_all(origin, "\\", "\\\\"), "\"", "\\\"");
    text.append("[remote \"origin\"]\n").append(kUrlLine).append(quoted).append("\"\n");
    text += "\tfetch = +refs/heads/*:refs/remotes/origin/*\n";
  }
  return text;
}

bool is_our_config_line(std::string_view line) {
  if (line.empty()) return true;
  if (line.starts_with(kUrlLine) && line.ends_with('"')) return true;
  return std::find(kConfigLines.begin(), kConfigLines.end(), line) != kConfigLines.end();
}

/// Nothing in the git directory may name a program or lead to another configuration.
void check_git_directory(const fs::path& git_dir) {
  ErrorInfo info;
  info.service = "git";
  struct stat status = {};
  const fs::path config = git_dir / "config";
  if (::lstat(config.c_str(), &status) != 0)
    throw GitError("no git directory of ours", std::move(info));
  bool ours = S_ISREG(status.st_mode);
  if (ours) {
    const std::string text = read_file(config, kConfigBytes);
    for (const std::string_view line : split(text, '\n')) ours = ours && is_our_config_line(line);
  }
  if (!ours || ::lstat((git_dir / "commondir").c_str(), &status) == 0) {
    throw SecurityError("the git directory's configuration was changed by someone else",
                        std::move(info));
  }
}

bool is_ssh(const std::string& url) {
  return url.starts_with("ssh://") ||
         (url.find("://") == std::string::npos && !url.starts_with("/"));
}

/// scheme://host:port of an http(s) URL, else empty.
std::string http_origin(const std::string& url) {
  if (!url.starts_with("https://") && !url.starts_with("http://")) return {};
  return url.substr(0, url.find('/', url.find("://") + 3));
}

void require(bool holds, const std::string& what) {
  if (holds) return;
  ErrorInfo info;
  info.service = "git";
  throw GitError(what, std::move(info));
}

std::vector<std::string_view> nul_separated(std::string_view text) {
  std::vector<std::string_view> parts = split(text, '\0');
  if (!parts.empty() && parts.back().empty()) parts.pop_back();
  return parts;
}

/// `--raw --numstat -z`: all raw records (":… STATUS", path), then all counts
/// ("ADDED\tREMOVED\tpath").
std::vector<FileChange> parse_changes(const std::string& output) {
  std::vector<FileChange> changes;
  std::map<std::string, std::size_t, std::less<>> by_path;
  const std::vector<std::string_view> parts = nul_separated(output);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::string_view part = parts[i];
    if (part.starts_with(":") && i + 1 < parts.size()) {
      FileChange change;
      change.status = part.substr(part.rfind(' ') + 1, 1);
      change.path = parts[++i];
      by_path[change.path] = changes.size();
      changes.push_back(std::move(change));
      continue;
    }
    const std::size_t first = part.find('\t');
    const std::size_t second = part.find('\t', first + 1);
    require(second != std::string_view::npos, "git's list of changes cannot be read");
    const auto change = by_path.find(part.substr(second + 1));
    if (change == by_path.end()) continue;
    changes[change->second].added = parse_int(part.substr(0, first));
    changes[change->second].removed = parse_int(part.substr(first + 1, second - first - 1));
  }
  return changes;
}

struct RemoteListing {
  std::map<std::string, std::string> refs;
  std::optional<std::string> head_branch;
};

RemoteListing parse_listing(const std::string& output) {
  RemoteListing listing;
  for (const std::string_view line : split(output, '\n')) {
    const std::size_t tab = line.find('\t');
    if (tab == std::string_view::npos) continue;
    const std::string_view value = line.substr(0, tab);
    const std::string_view name = line.substr(tab + 1);
    if (value.starts_with("ref: ")) {
      const std::string_view target = value.substr(5);
      if (name == "HEAD" && target.starts_with(kHeads) &&
          is_branch_name(target.substr(kHeads.size()))) {
        listing.head_branch = std::string(target.substr(kHeads.size()));
      }
    } else if (is_object_id(value) && (name == "HEAD" || name.starts_with(kHeads))) {
      listing.refs.emplace(name, value);
    }
  }
  return listing;
}

}  // namespace

// ----------------------------------------------------------------------------------------------
// Git

Git::Git(process::Supervisor& supervisor, GitOptions options)
    : supervisor_(supervisor), options_(std::move(options)) {
  const std::string_view token = options_.token.reveal();
  if (!token.empty()) masker_ = Masker({&options_.token});  // refuses a secret of several lines
  const char* path = std::getenv("PATH");
  const auto pass_through = [](const char* name, std::vector<std::string>& env) {
    if (const char* value = std::getenv(name)) env.push_back(std::string(name) + "=" + value);
  };
  pass_through("SSH_AUTH_SOCK", ssh_env_);
  for (const char* name : kHttpEnvironment) pass_through(name, http_env_);
  env_ = {
      std::string("PATH=") + (path && *path ? path : "/usr/local/bin:/usr/bin:/bin"),
      "HOME=/nonexistent",
      "LANG=C.UTF-8",
      "LC_ALL=C.UTF-8",
      "GIT_CONFIG_NOSYSTEM=1",
      "GIT_CONFIG_GLOBAL=/dev/null",
      "GIT_ATTR_NOSYSTEM=1",
      "GIT_TERMINAL_PROMPT=0",
      "GIT_ALLOW_PROTOCOL=file:http:https:ssh",
      "GIT_PROTOCOL_FROM_USER=0",
      "GIT_NO_REPLACE_OBJECTS=1",
      "GIT_NO_LAZY_FETCH=1",
      "GIT_ADVICE=0",
      "GIT_CEILING_DIRECTORIES=/",
      "GIT_SSH_COMMAND=ssh -oBatchMode=yes",
      "GIT_SSH_VARIANT=ssh",
      "GIT_AUTHOR_NAME=" + options_.author_name,
      "GIT_AUTHOR_EMAIL=" + options_.author_email,
      "GIT_COMMITTER_NAME=" + options_.author_name,
      "GIT_COMMITTER_EMAIL=" + options_.author_email,
  };
}

process::CommandResult Git::execute(const Invocation& invocation,
                                    const CallContext& context) const {
  process::Command command;
  command.argv = {"git"};
  for (const char* setting : kHardening) command.argv.insert(command.argv.end(), {"-c", setting});
  command.env = env_;
  command.env.insert(command.env.end(), invocation.repository_env.begin(),
                     invocation.repository_env.end());
  if (invocation.reads_only) command.env.push_back("GIT_OPTIONAL_LOCKS=0");
  if (!invocation.remote_url.empty()) {
    const std::string origin = http_origin(invocation.remote_url);
    const std::vector<std::string> none;
    const auto& more = is_ssh(invocation.remote_url) ? ssh_env_ : origin.empty() ? none : http_env_;
    command.env.insert(command.env.end(), more.begin(), more.end());
    if (!origin.empty() && !options_.token.empty()) {
      // git asks this helper, for this origin only (not for where a redirect leads), and it answers
      // from the environment of this one child: the token is in no argument, URL or file.
      command.argv.insert(
          command.argv.end(),
          {"-c", "credential." + origin +
                     ".helper=!f() { test \"$1\" = get && printf 'username=x-access-token\\n"
                     "password=%s\\n' \"$NECROCODE_GIT_TOKEN\"; }; f"});
      command.env.push_back("NECROCODE_GIT_TOKEN=" + std::string(options_.token.reveal()));
    }
  }
  command.argv.insert(command.argv.end(), invocation.repository_args.begin(),
                      invocation.repository_args.end());
  command.argv.insert(command.argv.end(), invocation.args.begin(), invocation.args.end());
  command.input = invocation.input;
  command.working_directory = invocation.working_directory;
  command.timeout =
      std::min<std::chrono::nanoseconds>(options_.command_timeout, context.remaining());
  command.head_bytes = output_bytes_max(invocation.remote_url);
  command.tail_bytes = 0;
  try {
    return supervisor_.run(command, context);
  } catch (const TestExecutionError& error) {
    ErrorInfo info;
    info.service = "git";
    info.operation = invocation.args.front();
    info.detail = error.what();
    info.cause = std::current_exception();
    throw GitError("git could not be started", std::move(info));
  }
}

void Git::fail(const Invocation& invocation, const process::CommandResult& result) const {
  ErrorInfo info;
  info.service = "git";
  info.operation = invocation.args.front();
  info.status = result.exit_code;
  // A remote's words are foreign and may be long.
  const std::string words = masker_.mask_head(trim(result.err.text()), 16 * kErrorDetailBytes);
  info.detail = printable(shorten(replace_all(words, "\n", "; "), kErrorDetailBytes));
  if (result.end == process::CommandEnd::kCancelled) {
    info.end = CallEnd::kCancelled;
    throw TimeoutError("git was cancelled", std::move(info));
  }
  if (result.end == process::CommandEnd::kTimedOut) {
    info.end = CallEnd::kDeadline;
    throw TimeoutError("git took too long", std::move(info));
  }
  throw GitError("git failed", std::move(info));
}

std::string Git::output(const Invocation& invocation, const CallContext& context) const {
  process::CommandResult result = execute(invocation, context);
  if (!result.ok()) fail(invocation, result);
  if (result.out.truncated()) {
    ErrorInfo info;
    info.service = "git";
    info.operation = invocation.args.front();
    const std::size_t most = output_bytes_max(invocation.remote_url);
    throw ResourceLimitError(
        "git's output is larger than " + std::to_string(most / limits::kMiB) + " MiB",
        std::move(info));
  }
  return std::move(result.out.head);
}

std::string Git::run(const std::vector<std::string>& args, const CallContext& context) const {
  Invocation invocation;
  invocation.args = args;
  return output(invocation, context);
}

std::map<std::string, std::string> Git::remote_refs(const std::string& url,
                                                    const CallContext& context) const {
  check_remote_url(url);
  Invocation invocation;
  invocation.args = {"ls-remote", "--quiet", "--", url, "HEAD", "refs/heads/*"};
  invocation.remote_url = url;
  return parse_listing(output(invocation, context)).refs;
}

std::optional<std::string> Git::remote_head_branch(const std::string& url,
                                                   const CallContext& context) const {
  check_remote_url(url);
  Invocation invocation;
  invocation.args = {"ls-remote", "--quiet", "--symref", "--", url, "HEAD"};
  invocation.remote_url = url;
  return parse_listing(output(invocation, context)).head_branch;
}

// ---------------------------------------------------------------------------------------
// Repository

Repository::Repository(const Git& git, fs::path git_dir, fs::path work_tree,
                       fs::path object_directory)
    : git_(git),
      git_dir_(std::move(git_dir)),
      work_tree_(std::move(work_tree)),
      object_directory_(std::move(object_directory)) {}

Git::Invocation Repository::prepare(std::vector<std::string> args) const {
  check_git_directory(git_dir_);
  Git::Invocation invocation;
  invocation.args = std::move(args);
  invocation.repository_args = {"--git-dir=" + git_dir_.string()};
  invocation.working_directory = git_dir_;
  if (!work_tree_.empty()) {
    invocation.repository_args.push_back("--work-tree=" + work_tree_.string());
    invocation.working_directory = work_tree_;
  }
  if (!object_directory_.empty()) {
    invocation.repository_env = {
        "GIT_OBJECT_DIRECTORY=" + object_directory_.string(),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES=" + (git_dir_ / "objects").string(),
    };
  }
  return invocation;
}

std::string Repository::run(const std::vector<std::string>& args, const CallContext& context,
                            const std::string& input) const {
  Git::Invocation invocation = prepare(args);
  invocation.input = input;
  return git_.output(invocation, context);
}

void Repository::init(const std::vector<fs::path>& alternates, const CallContext&,
                      const std::string& origin) const {
  std::error_code error;
  for (const char* folder : {"objects/info", "objects/pack", "refs/heads", "refs/tags"}) {
    fs::create_directories(git_dir_ / folder, error);
    if (error)
      throw StorageError("cannot create " + (git_dir_ / folder).string() + ": " + error.message());
  }
  std::string lines;
  for (const fs::path& alternate : alternates) {
    require(alternate.is_absolute() && alternate.string().find('\n') == std::string::npos,
            "an alternate must be an absolute path");
    lines += alternate.string() + "\n";
  }
  if (!lines.empty()) write_file_atomic(git_dir_ / "objects/info/alternates", lines);
  write_file_atomic(git_dir_ / "config", config_text(work_tree_.empty(), origin));
  if (!fs::exists(git_dir_ / "HEAD", error))
    write_file_atomic(git_dir_ / "HEAD", "ref: refs/heads/main\n");
}

void Repository::fetch(const std::string& url, const std::vector<std::string>& refspecs,
                       const CallContext& context, bool prune) const {
  check_remote_url(url);
  for (const std::string& refspec : refspecs) {
    const std::size_t colon = refspec.find(':');
    const std::string_view target = colon == std::string::npos
                                        ? std::string_view()
                                        : std::string_view(refspec).substr(colon + 1);
    const bool ours = target.starts_with("refs/remotes/") || target.starts_with("refs/necrocode/");
    if (refspec.starts_with("-") || !(ours || is_object_id(refspec))) {
      throw SecurityError("a fetch may write below refs/remotes/ and refs/necrocode/ only");
    }
  }
  Git::Invocation invocation =
      prepare({"fetch", "--quiet", "--force", "--no-tags", "--no-recurse-submodules",
               "--no-write-fetch-head", "--no-auto-maintenance", "--no-show-forced-updates"});
  if (prune) invocation.args.push_back("--prune");
  invocation.args.insert(invocation.args.end(), {"--", url});
  invocation.args.insert(invocation.args.end(), refspecs.begin(), refspecs.end());
  invocation.remote_url = url;
  git_.output(invocation, context);
}

std::optional<std::string> Repository::resolve(std::string_view revision,
                                               const CallContext& context) const {
  if (revision.empty() || revision.front() == '-' || revision.find('\0') != std::string_view::npos)
    return {};
  Git::Invocation invocation = prepare({"rev-parse", "--verify", "--quiet", "--end-of-options",
                                        std::string(revision) + "^{commit}"});
  invocation.reads_only = true;
  const process::CommandResult result = git_.execute(invocation, context);
  if (result.ok()) {
    const std::string id(trim(result.out.head));
    require(is_object_id(id), "git's answer is not an object id");
    return id;
  }
  if (result.end == process::CommandEnd::kExited &&
      (result.exit_code == 1 || result.exit_code == 128))
    return {};
  git_.fail(invocation, result);
}

void Repository::check_out(const std::string& branch, const std::string& commit, bool clean,
                           const CallContext& context) const {
  require(is_branch_name(branch), "not a branch name");
  require(is_object_id(commit), "not a full object id");
  if (clean) {
    std::vector<IndexEntry> index;
    try {
      index = read_index(git_dir_ / "index");
    } catch (const RunnerError&) {
      // None, or not one of ours: everything is written anew.
      remove_tree(git_dir_ / "index");
    }
    const TreeComparison swept = sweep_tree(work_tree_, index);
    require(swept.failures.empty(), "cannot clean the work tree: " + join(swept.failures, "; "));
  }
  write_file_atomic(git_dir_ / "HEAD", "ref: refs/heads/" + branch + "\n");
  run({"reset", "--hard", "--quiet", commit, "--"}, context);
}

std::vector<FileChange> Repository::stage_all(const CallContext& context) const {
  Git::Invocation add = prepare({"add", "--all", "--pathspec-from-file=-", "--pathspec-file-nul"});
  // git would look into a nested repository by running git there, with that repository's config.
  add.input = std::string(":(top)") + '\0';
  for (const std::string& path : nested_repositories(work_tree_)) {
    add.input += ":(top,exclude,literal)" + path + '\0';
  }
  git_.output(add, context);
  return changes("HEAD", "", context);
}

void Repository::stage(const std::vector<std::string>& paths, const CallContext& context) const {
  Git::Invocation update = prepare({"update-index", "--add", "--remove", "-z", "--stdin"});
  for (const std::string& path : paths) update.input += path + '\0';
  git_.output(update, context);
}

void Repository::restore_from_index(const CallContext& context, const std::set<std::string>& keep,
                                    const fs::path& aside) const {
  const TreeComparison swept = sweep_tree(work_tree_, read_index(git_dir_ / "index"), keep, aside);
  require(swept.failures.empty(), "cannot clean the work tree: " + join(swept.failures, "; "));
  if (swept.difference_count == 0) return;
  run({"checkout-index", "--all", "--force", "--index", "--quiet"}, context);
}

void Repository::refresh_index(const CallContext& context) const {
  // It exits with 1 when a file differs, which is no failure here.
  const Git::Invocation refresh = prepare({"update-index", "-q", "--refresh"});
  const process::CommandResult result = git_.execute(refresh, context);
  if (!result.ok() && result.exit_code != 1) git_.fail(refresh, result);
}

std::string Repository::head_commit() const {
  const std::string head(trim(read_file(git_dir_ / "HEAD", kConfigBytes)));
  if (is_object_id(head)) return head;
  require(head.starts_with("ref: refs/"), "HEAD cannot be read");
  const std::string id(trim(read_file(git_dir_ / head.substr(5), kConfigBytes)));
  require(is_object_id(id), "HEAD cannot be read");
  return id;
}

std::string Repository::commit(const std::string& message, const CallContext& context) const {
  Git::Invocation invocation =
      prepare({"commit", "--quiet", "--no-verify", "--no-gpg-sign", "--no-status",
               "--allow-empty-message", "--cleanup=verbatim", "--file=-"});
  invocation.input = message;
  git_.output(invocation, context);
  // The commit has just written its branch as a file of its own: no further child to ask.
  return head_commit();
}

std::optional<std::string> Repository::merge(const std::vector<std::string>& commits,
                                             const std::string& message,
                                             std::vector<std::string>& conflicts,
                                             const CallContext& context) const {
  conflicts.clear();
  require(!commits.empty(), "nothing to merge");
  for (const std::string& commit : commits) require(is_object_id(commit), "not a full object id");
  if (commits.size() == 1) return commits.front();

  std::vector<std::string> args = {"merge-base", "--independent"};
  args.insert(args.end(), commits.begin(), commits.end());
  const std::string independent = run(args, context);
  std::vector<std::string> parents;
  for (const std::string& commit : commits) {
    const bool listed = independent.find(commit) != std::string::npos;
    if (listed && std::find(parents.begin(), parents.end(), commit) == parents.end())
      parents.push_back(commit);
  }
  require(!parents.empty(), "git's answer cannot be read");
  if (parents.size() == 1) return parents.front();

  std::string merged = parents.front();
  for (std::size_t i = 1; i < parents.size(); ++i) {
    const auto tree = merge_trees(merged, parents[i], conflicts, context);
    if (!tree) return {};
    // The last one gets all of them as parents; those before only carry the tree on.
    merged = record(*tree, {parents.begin(), parents.begin() + static_cast<std::ptrdiff_t>(i) + 1},
                    message, context);
  }
  return merged;
}

std::optional<std::string> Repository::rebase(const std::string& commit, const std::string& onto,
                                              const std::string& message,
                                              std::vector<std::string>& conflicts,
                                              const CallContext& context) const {
  conflicts.clear();
  require(is_object_id(commit) && is_object_id(onto), "not a full object id");
  const auto tree = merge_trees(onto, commit, conflicts, context);
  if (!tree) return {};
  return record(*tree, {onto}, message, context);
}

// The tree of both merged, or nothing and the paths in conflict.
std::optional<std::string> Repository::merge_trees(const std::string& ours,
                                                   const std::string& theirs,
                                                   std::vector<std::string>& conflicts,
                                                   const CallContext& context) const {
  const Git::Invocation tree =
      prepare({"merge-tree", "--write-tree", "--name-only", "-z", "--no-messages",
               "--allow-unrelated-histories", ours, theirs});
  const process::CommandResult result = git_.execute(tree, context);
  const bool conflict = result.end == process::CommandEnd::kExited && result.exit_code == 1;
  if (!result.ok() && !conflict) git_.fail(tree, result);
  const std::vector<std::string_view> parts = nul_separated(result.out.head);
  require(!parts.empty() && is_object_id(parts.front()), "git's merge cannot be read");
  if (!conflict) return std::string(parts.front());
  conflicts.assign(parts.begin() + 1, parts.end());
  return {};
}

std::string Repository::record(const std::string& tree, const std::vector<std::string>& parents,
                               const std::string& message, const CallContext& context) const {
  Git::Invocation record = prepare({"commit-tree", tree, "-F", "-"});
  for (const std::string& parent : parents) {
    record.args.insert(record.args.end(), {"-p", parent});
  }
  record.input = message;
  std::string commit(trim(git_.output(record, context)));
  require(is_object_id(commit), "git's commit cannot be read");
  return commit;
}

std::string Repository::diff(const std::string& from, const std::string& to,
                             const CallContext& context) const {
  std::vector<std::string> args = {
      "diff", "--no-ext-diff",   "--no-textconv",  "--binary", "--no-color",
      "-M",   "--src-prefix=a/", "--dst-prefix=b/"};
  if (to.empty()) args.push_back("--cached");
  args.insert(args.end(),
              {"--ignore-submodules=none", "--submodule=short", "--end-of-options", from});
  if (!to.empty()) args.push_back(to);
  args.push_back("--");
  Git::Invocation invocation = prepare(std::move(args));
  invocation.reads_only = true;
  return git_.output(invocation, context);
}

std::vector<FileChange> Repository::changes_of(std::vector<std::string> args,
                                               const CallContext& context) const {
  const std::vector<std::string> form = {"--raw",
                                         "--numstat",
                                         "-z",
                                         "--no-renames",
                                         "--no-ext-diff",
                                         "--no-textconv",
                                         "--ignore-submodules=none"};
  args.insert(args.begin(), form.begin(), form.end());
  args.insert(args.begin(), "diff");
  args.push_back("--");
  Git::Invocation invocation = prepare(std::move(args));
  invocation.reads_only = true;
  return parse_changes(git_.output(invocation, context));
}

std::vector<FileChange> Repository::changes(const std::string& from, const std::string& to,
                                            const CallContext& context) const {
  if (to.empty()) return changes_of({"--cached", "--end-of-options", from}, context);
  return changes_of({"--end-of-options", from, to}, context);
}

std::string Repository::commit_message(const std::string& commit,
                                       const CallContext& context) const {
  require(is_object_id(commit), "not a full object id");
  const std::string raw = run({"cat-file", "commit", commit}, context);
  const std::size_t end_of_headers = raw.find("\n\n");
  return end_of_headers == std::string::npos ? std::string() : raw.substr(end_of_headers + 2);
}

std::vector<std::string> Repository::tracked_files(const CallContext&) const {
  std::vector<std::string> paths;
  for (IndexEntry& entry : read_index(git_dir_ / "index")) paths.push_back(std::move(entry.path));
  return paths;
}

std::vector<std::string> Repository::status(bool untracked, const CallContext& context) const {
  Git::Invocation invocation =
      prepare({"status", "--porcelain=v1", "-z", "--no-renames", "--ignore-submodules=all",
               untracked ? "--untracked-files=all" : "--untracked-files=no"});
  invocation.reads_only = true;
  const std::string text = git_.output(invocation, context);
  const std::vector<std::string_view> parts = nul_separated(text);
  return {parts.begin(), parts.end()};
}

PushOutcome Repository::push(const std::string& url, const std::string& commit,
                             const std::string& branch, const std::string& expected_tip,
                             const CallContext& context, std::string* remote_words) const {
  check_remote_url(url);
  require(is_branch_name(branch), "not a branch name");
  require(is_object_id(commit), "not a full object id");
  require(expected_tip.empty() || is_object_id(expected_tip), "not a full object id");
  const std::string ref = std::string(kHeads) + branch;
  Git::Invocation invocation =
      prepare({"push", "--porcelain", "--no-verify", "--no-follow-tags", "--no-signed",
               "--no-recurse-submodules", "--force-with-lease=" + ref + ":" + expected_tip, "--",
               url, commit + ":" + ref});
  invocation.remote_url = url;
  const process::CommandResult result = git_.execute(invocation, context);
  if (remote_words)
    *remote_words = shorten(git_.masker_.mask_head(trim(result.err.text()), 16 * 1000), 1000);
  // FLAG \t FROM:TO \t SUMMARY (git-push(1), "Output")
  for (const std::string_view line : split(result.out.head, '\n')) {
    const std::vector<std::string_view> fields = split(line, '\t');
    if (fields.size() < 3 || fields[0].size() != 1 || !fields[1].ends_with(":" + ref)) continue;
    const char flag = fields[0].front();
    if (flag == '=') return PushOutcome::kUpToDate;
    if (flag != '!') {
      if (!result.ok()) break;  // the remote said so, then something failed: unknown
      return PushOutcome::kPushed;
    }
    const std::string_view reason = fields[2];
    const auto says = [reason](std::string_view words) {
      return reason.find(words) != std::string_view::npos;
    };
    // The branch moved before we asked, or between our look and the update.
    if (says("stale info") || says("fetch first") || says("cannot lock ref") ||
        says("failed to update ref") || says("incorrect old value") ||
        says("reference already exists")) {
      return PushOutcome::kStale;
    }
    if (says("[remote rejected]")) return PushOutcome::kRejected;
    break;
  }
  git_.fail(invocation, result);
}

}  // namespace necrocode::git
