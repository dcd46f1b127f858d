#include "necrocode/process/host_view.hpp"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <system_error>

#include "necrocode/base/text.hpp"

namespace necrocode::process {
namespace {

namespace fs = std::filesystem;

/// A toolchain that lives in a home folder: found when PATH names a folder below `marker`.
struct KnownToolchain {
  std::string_view marker;
  std::vector<std::string_view> needs;  ///< relative to the home
  std::string_view variable;            ///< set to home/`value`, when not empty
  std::string_view value;
};

const std::vector<KnownToolchain>& known_toolchains() {
  static const std::vector<KnownToolchain> known = {
      {".pyenv", {".pyenv"}, "PYENV_ROOT", ".pyenv"},
      {".rbenv", {".rbenv"}, "RBENV_ROOT", ".rbenv"},
      {".nodenv", {".nodenv"}, "NODENV_ROOT", ".nodenv"},
      {".goenv", {".goenv"}, "GOENV_ROOT", ".goenv"},
      {".asdf", {".asdf"}, "ASDF_DATA_DIR", ".asdf"},
      {".local/share/mise", {".local/share/mise"}, "MISE_DATA_DIR", ".local/share/mise"},
      {".cargo/bin", {".cargo/bin", ".rustup"}, "RUSTUP_HOME", ".rustup"},
      {".volta/bin", {".volta/bin", ".volta/tools", ".volta/layout.v4"}, "VOLTA_HOME", ".volta"},
      {".nvm", {".nvm/versions"}, "", ""},
      {".sdkman/candidates", {".sdkman/candidates"}, "", ""},
      {".local/bin",
       {".local/bin", ".local/share/uv/python", ".local/share/uv/tools", ".local/pipx/venvs",
        ".local/share/pipx/venvs"},
       "",
       ""},
      {"miniconda3", {"miniconda3"}, "", ""},
      {"anaconda3", {"anaconda3"}, "", ""},
      {"miniforge3", {"miniforge3"}, "", ""},
      {"mambaforge", {"mambaforge"}, "", ""},
  };
  return known;
}

/// Folders that the sandbox shows, replaces or keeps away as a whole: PATH cannot add to them.
bool is_decided_elsewhere(const fs::path& folder) {
  static constexpr std::array kPlaces = {"/usr",   "/bin",     "/sbin", "/lib",   "/lib32",
                                         "/lib64", "/etc",     "/dev",  "/proc",  "/sys",
                                         "/run",   "/var/run", "/boot", "/libx32"};
  return std::any_of(kPlaces.begin(), kPlaces.end(),
                     [&folder](const char* place) { return is_within(folder, place); });
}

void add_unique(std::vector<fs::path>& paths, const fs::path& path) {
  if (std::find(paths.begin(), paths.end(), path) == paths.end()) paths.push_back(path);
}

bool present(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

bool add_known(const fs::path& folder, const fs::path& home, Toolchains& found) {
  for (const KnownToolchain& known : known_toolchains()) {
    if (!is_within(folder, home / known.marker)) continue;
    for (const std::string_view need : known.needs) {
      if (present(home / need)) add_unique(found.visible, home / need);
    }
    const std::pair<std::string, std::string> variable(known.variable,
                                                       (home / known.value).string());
    if (!known.variable.empty() &&
        std::find(found.env.begin(), found.env.end(), variable) == found.env.end()) {
      found.env.push_back(variable);
    }
    return true;
  }
  return false;
}

/// A package in /opt, or a shared installation, is seen whole; anything else as the folder alone.
fs::path whole_package(const fs::path& folder) {
  if (is_within(folder, "/nix")) return "/nix/store";
  if (is_within(folder, "/home/linuxbrew/.linuxbrew")) return "/home/linuxbrew/.linuxbrew";
  if (is_within(folder, "/opt")) {
    const fs::path inside = folder.lexically_relative("/opt");
    if (inside != ".") return fs::path("/opt") / *inside.begin();
  }
  return folder;
}

/// `pattern` is a name, or the beginning of one before a '*'.
bool matches(std::string_view name, std::string_view pattern) {
  if (pattern.ends_with('*')) return name.starts_with(pattern.substr(0, pattern.size() - 1));
  return name == pattern;
}

}  // namespace

bool is_within(const fs::path& path, const fs::path& folder) {
  const auto [in_folder, in_path] =
      std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return in_folder == folder.end() || (in_folder->empty() && std::next(in_folder) == folder.end());
}

std::vector<fs::path> path_folders(std::string_view path) {
  std::vector<fs::path> folders;
  for (const std::string_view part : split(path, ':')) {
    if (part.starts_with('/')) add_unique(folders, fs::path(part).lexically_normal());
  }
  return folders;
}

Toolchains find_toolchains(const std::vector<fs::path>& folders,
                           const std::vector<fs::path>& homes) {
  Toolchains found;
  for (const fs::path& folder : folders) {
    if (is_decided_elsewhere(folder) || !present(folder)) continue;
    if (std::any_of(homes.begin(), homes.end(), [&folder, &found](const fs::path& home) {
          return add_known(folder, home, found);
        })) {
      continue;
    }
    const fs::path shown = whole_package(folder);
    // A link could lead into what must stay hidden, so the judgement is on where it ends.
    std::error_code error;
    const fs::path real = fs::canonical(shown, error);
    const bool holds_home =
        error || std::any_of(homes.begin(), homes.end(), [&](const fs::path& home) {
          return is_within(home, real) || is_within(home, shown);
        });
    if (!holds_home && real != "/" && real != "/opt" && !is_within(real, "/proc")) {
      add_unique(found.visible, shown);
    }
  }
  return found;
}

std::vector<fs::path> home_folders() {
  std::vector<fs::path> homes;
  const auto add = [&homes](const char* home) {
    if (home == nullptr || home[0] != '/') return;
    const fs::path path = fs::path(home).lexically_normal();
    if (path == "/") return;
    add_unique(homes, path.has_filename() ? path : path.parent_path());
  };
  add(std::getenv("HOME"));
  std::array<char, 16 * 1024> buffer{};
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwuid_r(::getuid(), &entry, buffer.data(), buffer.size(), &found) == 0 &&
      found != nullptr) {
    add(found->pw_dir);
  }
  return homes;
}

std::vector<fs::path> visible_etc(bool network) {
  // Not here, on purpose: shadow, gshadow, sudoers, ssh, ssl/private, machine-id, environment,
  // profile, gitconfig, npmrc, pip.conf, netrc: they hold, or can hold, credentials.
  static constexpr std::array kNames = {
      "passwd",    "group",     "nsswitch.conf", "ld.so.cache",    "ld.so.conf",     "localtime",
      "timezone",  "host.conf", "ld.so.conf.d",  "alternatives",   "hosts",          "mime.types",
      "protocols", "services",  "os-release",    "debian_version", "redhat-release", "perl",
      "fonts",     "java-*",    "python3*",      "crypto-policies"};
  // Of folders that also have such files: maven/settings.xml, ssl/private, pki/tls/private.
  static constexpr std::array kParts = {
      "/etc/ssl/certs",    "/etc/ssl/openssl.cnf", "/etc/ssl/cert.pem", "/etc/pki/tls/certs",
      "/etc/pki/ca-trust", "/etc/maven/m2.conf",   "/etc/maven/logging"};
  std::vector<fs::path> visible;
  std::error_code error;
  for (fs::directory_iterator it("/etc", error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    const bool listed = std::any_of(kNames.begin(), kNames.end(),
                                    [&name](const char* known) { return matches(name, known); });
    if (listed && present(it->path())) visible.push_back(it->path());
  }
  for (const char* path : kParts) {
    if (present(path)) visible.emplace_back(path);
  }
  if (network && present("/etc/resolv.conf")) visible.emplace_back("/etc/resolv.conf");
  std::sort(visible.begin(), visible.end());
  return visible;
}

std::optional<fs::path> find_program(const std::vector<fs::path>& folders, std::string_view name) {
  for (const fs::path& folder : folders) {
    const fs::path candidate = folder / name;
    std::error_code error;
    if (fs::is_regular_file(candidate, error) && ::access(candidate.c_str(), X_OK) == 0) {
      return candidate;
    }
  }
  return std::nullopt;
}

}  // namespace necrocode::process
