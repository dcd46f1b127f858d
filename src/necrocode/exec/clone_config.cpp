#include "necrocode/exec/clone_config.hpp"

#include <array>
#include <cstdlib>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/exec/plain_git.hpp"

namespace necrocode::exec {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kConfigBytes = limits::kMiB;

// How files get from the objects into the work tree; none of them names a program.
constexpr std::array<std::string_view, 5> kCheckout = {
    "core.filemode", "core.symlinks", "core.ignorecase", "core.autocrlf", "core.eol"};

fs::path home() {
  const char* home = std::getenv("HOME");
  return home ? home : "";
}

fs::path user_folder() {
  const char* folder = std::getenv("XDG_CONFIG_HOME");
  return folder && *folder ? fs::path(folder) / "git" : home() / ".config/git";
}

// What stands between the first and the last dot.
std::string_view subsection(std::string_view key) {
  const std::size_t first = key.find('.');
  const std::size_t last = key.rfind('.');
  return first == last ? std::string_view() : key.substr(first + 1, last - first - 1);
}

std::string_view variable(std::string_view key) {
  return key.substr(key.rfind('.') + 1);
}

}  // namespace

std::string without_credentials(const std::string& url) {
  const std::size_t scheme = url.find("://");
  if (scheme == std::string::npos) return url;
  const std::size_t host = scheme + 3;
  const std::size_t end = url.find_first_of("/?#", host);
  const std::size_t at = url.substr(0, end).rfind('@');
  if (at == std::string::npos || at < host) return url;
  const std::size_t colon = url.find(':', host);
  const bool keeps_user = !url.starts_with("http");
  const std::string user = keeps_user ? url.substr(host, std::min(colon, at) - host) + "@" : "";
  return url.substr(0, host) + user + url.substr(at + 1);
}

CloneConfig CloneConfig::read(const git::Git& git, const std::vector<fs::path>& files,
                              const fs::path& scratch, const CallContext& context) {
  std::vector<fs::path> all = {user_folder() / "config", home() / ".gitconfig"};
  all.insert(all.end(), files.begin(), files.end());
  std::string text;
  for (const fs::path& file : all) {
    std::error_code error;
    if (fs::is_regular_file(file, error)) text += read_file(file, kConfigBytes) + "\n";
  }
  // They may hold credentials.
  const fs::path copy = scratch / "config-read";
  write_file_atomic(copy, text, 0600);
  std::string listed;
  try {
    listed = git.run({"config", "--file", copy.string(), "--no-includes", "--list", "-z"}, context);
  } catch (const git::GitError& error) {
    fs::remove(copy);
    throw TaskContextValidationError("the clone's git configuration cannot be read", error.info());
  } catch (...) {
    fs::remove(copy);
    throw;
  }
  fs::remove(copy);
  CloneConfig config;
  for (const std::string_view setting : split(listed, '\0')) {
    if (setting.empty()) continue;
    const std::size_t end = setting.find('\n');
    const bool alone = end == std::string_view::npos;  // `[core] bare`: true
    config.settings_.emplace_back(setting.substr(0, end), alone ? "true" : setting.substr(end + 1));
  }
  return config;
}

std::optional<std::string> CloneConfig::get(std::string_view key) const {
  for (auto setting = settings_.rbegin(); setting != settings_.rend(); ++setting) {
    if (setting->first == key) return setting->second;
  }
  return std::nullopt;
}

bool CloneConfig::is_true(std::string_view key) const {
  const std::string value = ascii_lower(get(key).value_or(""));
  return value == "true" || value == "yes" || value == "on" || value == "1";
}

fs::path CloneConfig::excludes_file() const {
  const auto named = get("core.excludesfile");
  if (!named) return user_folder() / "ignore";
  return named->starts_with("~/") ? home() / named->substr(2) : fs::path(*named);
}

// url.BASE.insteadOf: the longest prefix wins.
std::string CloneConfig::expanded(const std::string& url) const {
  std::string_view base;
  std::size_t longest = 0;
  for (const auto& [key, value] : settings_) {
    if (!key.starts_with("url.") || variable(key) != "insteadof") continue;
    if (value.size() <= longest || !url.starts_with(value)) continue;
    longest = value.size();
    base = subsection(key);
  }
  return std::string(base) + url.substr(longest);
}

std::optional<std::string> CloneConfig::remote_url(const std::string& branch,
                                                   const fs::path& root) const {
  const std::string remote = get("branch." + branch + ".remote").value_or("origin");
  auto named = get("remote." + remote + ".pushurl");
  if (!named) named = get("remote." + remote + ".url");
  if (!named) return std::nullopt;
  const std::string url = without_credentials(expanded(*named));
  // git takes HOST:PATH for a host when the colon comes before any slash.
  const bool is_path = url.find(':') == std::string::npos || url.find('/') < url.find(':');
  if (url.find("://") != std::string::npos || !is_path) return url;
  return fs::weakly_canonical(root / url).string();
}

std::set<std::string> CloneConfig::remotes() const {
  std::set<std::string> names;
  for (const auto& [key, value] : settings_) {
    if (key.starts_with("remote.") && !subsection(key).empty()) names.emplace(subsection(key));
  }
  return names;
}

std::string CloneConfig::for_program(const std::string& name, const std::string& email) const {
  std::string text =
      "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tlogallrefupdates = true\n";
  for (const std::string_view key : kCheckout) {
    if (const auto value = get(key)) {
      text.append("\t").append(variable(key)).append(" = ").append(in_quotes(*value)).append("\n");
    }
  }
  text += "[user]\n\tname = " + in_quotes(name) + "\n\temail = " + in_quotes(email) + "\n";
  text += "[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n";
  for (const auto& [key, value] : settings_) {
    const bool of_remote = key.starts_with("remote.");
    const std::string_view what = variable(key);
    const bool known = of_remote
                           ? what == "url" || what == "pushurl" || what == "fetch"
                           : key.starts_with("branch.") && (what == "remote" || what == "merge");
    const std::string_view of = subsection(key);
    if (!known || of.empty()) continue;
    text.append(of_remote ? "[remote " : "[branch ").append(in_quotes(of)).append("]\n\t");
    text.append(what).append(" = ");
    text.append(in_quotes(what.ends_with("url") ? without_credentials(expanded(value)) : value));
    text += "\n";
  }
  return text;
}

}  // namespace necrocode::exec
