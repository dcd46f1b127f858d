#include "necrocode/agent/installation.hpp"

#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "necrocode/base/text.hpp"
#include "necrocode/process/host_view.hpp"

namespace necrocode::agent {
namespace {

namespace fs = std::filesystem;

constexpr int kLinks = 40;          // as the kernel
constexpr int kInterpreters = 4;    // as the kernel: a script may be the interpreter of another
constexpr std::size_t kLine = 256;  // of a "#!" line, as the kernel

bool is_program(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error) && ::access(path.c_str(), X_OK) == 0;
}

// Shown by the sandbox anyway, or decided there.
bool is_the_systems(const fs::path& path) {
  static const std::vector<fs::path> kFolders = {"/usr", "/bin",   "/sbin",  "/lib",
                                                 "/etc", "/lib32", "/lib64", "/libx32"};
  return std::any_of(kFolders.begin(), kFolders.end(),
                     [&](const fs::path& folder) { return process::is_within(path, folder); });
}

// The outermost node_modules that `path` is in: what a program there requires stands in it too.
std::optional<fs::path> node_modules_of(const fs::path& path) {
  fs::path folder;
  for (const fs::path& part : path.parent_path()) {
    // pnpm's packages stand in a folder of their own each, and link to each other.
    if (part == ".pnpm") return folder / part;
    folder /= part;
    if (part == "node_modules") return folder;
  }
  return std::nullopt;
}

// The words of a script's first line after "#!"; none of another file.
std::vector<std::string> interpreter_line(const fs::path& file) {
  std::string line(kLine, '\0');
  std::ifstream stream(file, std::ios::binary);
  stream.read(line.data(), static_cast<std::streamsize>(line.size()));
  line.resize(static_cast<std::size_t>(stream.gcount()));
  line.resize(std::min(line.size(), line.find('\n')));
  std::vector<std::string> words;
  if (!line.starts_with("#!")) return words;
  std::replace(line.begin(), line.end(), '\t', ' ');
  for (const std::string_view word : split(std::string_view(line).substr(2), ' ')) {
    if (!trim(word).empty()) words.emplace_back(trim(word));
  }
  return words;
}

// What env runs: `env node`, `env -S node --flag`, `env A=b node`. Empty when it names none.
std::string named_by_env(const std::vector<std::string>& words) {
  const auto name = std::find_if(words.begin() + 1, words.end(), [](const std::string& word) {
    return !word.starts_with('-') && word.find('=') == std::string::npos;
  });
  return name == words.end() ? std::string() : *name;
}

class Finder {
 public:
  Finder(std::string_view path, const fs::path& workspace)
      : path_(process::path_folders(path)),
        homes_(process::home_folders()),
        workspace_(workspace.lexically_normal()) {}

  std::optional<Installation> find(std::string_view name, const fs::path& folder) {
    if (name.find('/') == std::string_view::npos) {
      const auto found = process::find_program(path_, name);
      if (!found) return std::nullopt;
      result_.program = *found;
    } else {
      result_.program = (folder / name).lexically_normal();
      if (!is_program(result_.program)) return std::nullopt;
    }
    follow(result_.program, 0);
    return std::move(result_);
  }

 private:
  // The file itself, through its links, and what runs it.
  void follow(const fs::path& program, int depth) {
    const std::vector<std::string> line = interpreter_line(program);
    const bool is_interpreter = depth > 0;
    fs::path file = program;
    for (int links = 0; links < kLinks; ++links) {
      show(file, line, is_interpreter);
      std::error_code error;
      const fs::path real_folder = fs::canonical(file.parent_path(), error);
      if (error) return;
      show(real_folder / file.filename(), line, is_interpreter);
      const fs::path target = fs::read_symlink(file, error);
      if (error) break;  // it is no link
      // By its name when that leads there too: inside, the folders of that name are plain ones.
      const fs::path named = (file.parent_path() / target).lexically_normal();
      file = fs::exists(named, error) ? named : (real_folder / target).lexically_normal();
    }
    if (line.empty() || depth >= kInterpreters) return;
    if (fs::path(line.front()).is_absolute()) follow(line.front(), depth + 1);
    if (fs::path(line.front()).filename() != "env") return;
    // By PATH, else beside the program.
    std::vector<fs::path> folders = path_;
    folders.push_back(program.parent_path());
    folders.push_back(file.parent_path());
    const auto found = process::find_program(folders, named_by_env(line));
    if (!found) return;  // the program will say so itself
    if (!is_the_systems(*found)) add(result_.path, found->parent_path());
    follow(*found, depth + 1);
  }

  // What has to be there for `file` to run: a folder, or only the file.
  fs::path needed_by(const fs::path& file, const std::vector<std::string>& line,
                     bool is_interpreter) const {
    const fs::path own = file.parent_path();
    if (const auto modules = node_modules_of(file)) return *modules;
    const bool runs_on_node = std::any_of(line.begin(), line.end(), [](const std::string& word) {
      return fs::path(word).filename() == "node" || fs::path(word).filename() == "bun";
    });
    std::error_code error;
    for (fs::path folder = own; runs_on_node && !is_too_much(folder);
         folder = folder.parent_path()) {
      if (fs::exists(folder / "package.json", error)) return folder;
    }
    const fs::path prefix = own.parent_path();
    // An interpreter's own library stands beside its bin; ~/.local holds more than that.
    const bool has_library = is_interpreter && own.filename() == "bin" &&
                             prefix.filename() != ".local" && fs::exists(prefix / "lib", error);
    const bool is_whole = has_library || fs::exists(prefix / "pyvenv.cfg", error);
    if (is_whole && !is_too_much(prefix)) return prefix;
    // What stands beside a program of its own, or a shell's, may be anything.
    const bool is_for_programs =
        own.filename() == "bin" || std::find(path_.begin(), path_.end(), own) != path_.end();
    return (is_for_programs || imports(line)) && !is_too_much(own) ? own : file;
  }

  // A script whose language takes modules from the script's folder.
  static bool imports(const std::vector<std::string>& line) {
    return !line.empty() && std::none_of(line.begin(), line.end(), [](const std::string& word) {
      return fs::path(word).filename().string().ends_with("sh");
    });
  }

  // A home, a folder that holds one, or one that everybody puts things into.
  bool is_too_much(const fs::path& folder) const {
    static const std::vector<fs::path> kShared = {"/tmp", "/var/tmp", "/opt", "/srv", "/run"};
    const auto is_in_it = [&](const fs::path& one) { return process::is_within(one, folder); };
    return std::any_of(homes_.begin(), homes_.end(), is_in_it) ||
           std::any_of(kShared.begin(), kShared.end(), is_in_it);
  }

  void show(const fs::path& file, const std::vector<std::string>& line, bool is_interpreter) {
    const bool is_inside = !workspace_.empty() && process::is_within(file, workspace_);
    if (is_the_systems(file) || is_inside) return;
    const fs::path needed = needed_by(file, line, is_interpreter);
    const auto holds_it = [&](const fs::path& one) { return process::is_within(needed, one); };
    if (std::any_of(result_.visible.begin(), result_.visible.end(), holds_it)) return;
    result_.visible.push_back(needed);
  }

  static void add(std::vector<fs::path>& paths, const fs::path& path) {
    if (std::find(paths.begin(), paths.end(), path) == paths.end()) paths.push_back(path);
  }

  std::vector<fs::path> path_;
  std::vector<fs::path> homes_;
  fs::path workspace_;
  Installation result_;
};

}  // namespace

std::optional<Installation> find_installation(std::string_view name, std::string_view path,
                                              const fs::path& folder, const fs::path& workspace) {
  if (name.empty() || name.find('\0') != std::string_view::npos) return std::nullopt;
  return Finder(path, workspace).find(name, folder);
}

}  // namespace necrocode::agent
