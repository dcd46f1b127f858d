#include "necrocode/runner/repository_map.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>

#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/runner/change_set.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kWordBytes = 3;
constexpr std::size_t kWords = 200;
constexpr double kInName = 8;
constexpr double kInFolder = 2;
constexpr double kInContent = 1;
constexpr std::size_t kFilesRead = 200;
constexpr std::size_t kFileBytesRead = 256 * limits::kKiB;
constexpr std::size_t kAllBytesRead = 4 * limits::kMiB;
constexpr std::size_t kBeginningLines = 12;
constexpr std::size_t kAroundLines = 6;

/// Of every task and every program.
constexpr std::array<std::string_view, 64> kCommonWords = {
    "add",   "all",   "and",    "any",       "are",    "but",    "can",  "change",
    "code",  "does",  "each",   "file",      "files",  "for",    "from", "get",
    "has",   "have",  "how",    "implement", "into",   "its",    "make", "may",
    "must",  "new",   "not",    "now",       "one",    "only",   "our",  "out",
    "own",   "pass",  "passes", "set",       "should", "some",   "such", "task",
    "test",  "tests", "than",   "that",      "the",    "their",  "them", "then",
    "there", "these", "they",   "this",      "too",    "update", "use",  "used",
    "uses",  "using", "was",    "when",      "which",  "will",   "with", "you"};

bool is_word_character(char c) {
  return is_ascii_alnum(c) || c == '_';
}
bool is_upper(char c) {
  return c >= 'A' && c <= 'Z';
}

/// Calls `each` with the parts of an identifier: at '_', and before a capital after a small letter.
template <class Each>
void for_each_part(std::string_view word, Each&& each) {
  std::size_t begin = 0;
  for (std::size_t i = 1; i <= word.size(); ++i) {
    const bool ends = i == word.size() || word[i] == '_' || word[i - 1] == '_' ||
                      (is_upper(word[i]) && !is_upper(word[i - 1]));
    if (!ends) continue;
    each(word.substr(begin, i - begin));
    begin = i;
  }
}

/// Calls `each` with every word and every part of it, as it stands.
template <class Each>
void for_each_word(std::string_view text, Each&& each) {
  for (std::size_t i = 0; i < text.size();) {
    if (!is_word_character(text[i])) {
      ++i;
      continue;
    }
    std::size_t end = i;
    while (end < text.size() && is_word_character(text[end])) ++end;
    const std::string_view word = text.substr(i, end - i);
    i = end;
    std::size_t parts = 0;
    for_each_part(word, [&](std::string_view part) {
      ++parts;
      if (part.size() >= kWordBytes) each(part);
    });
    if (parts > 1 && word.size() >= kWordBytes) each(word);
  }
}

/// Finds words in texts. Nearly every word of a text is none of them, and is passed over without
/// being copied: by its length and first letter.
class WordFinder {
 public:
  explicit WordFinder(const std::set<std::string>& words) : words_(words) {
    for (const std::string& word : words) {
      begins_[static_cast<unsigned char>(word.front())] = true;
      shortest_ = std::min(shortest_, word.size());
      longest_ = std::max(longest_, word.size());
    }
  }
  std::set<std::string> in(std::string_view text) const {
    std::set<std::string> found;
    for_each_word(text, [&](std::string_view word) {
      if (word.size() < shortest_ || word.size() > longest_) return;
      if (!begins_[static_cast<unsigned char>(is_upper(word[0]) ? word[0] - 'A' + 'a' : word[0])])
        return;
      const auto known = words_.find(ascii_lower(word));
      if (known != words_.end()) found.insert(*known);
    });
    return found;
  }

 private:
  const std::set<std::string>& words_;
  std::array<bool, 256> begins_{};
  std::size_t shortest_ = std::string::npos;
  std::size_t longest_ = 0;
};

struct Ranked {
  const std::string* path = nullptr;
  std::map<std::string, double> words;  ///< each with the most telling place that it stands at
  double score = 0;
};

void put(Ranked& file, const std::set<std::string>& words, double weight) {
  for (const std::string& word : words) {
    double& known = file.words[word];
    known = std::max(known, weight);
  }
}

bool is_text(std::string_view content) {
  return content.substr(0, 8 * limits::kKiB).find('\0') == std::string_view::npos;
}

}  // namespace

std::set<std::string> telling_words(std::string_view text) {
  std::set<std::string> words;
  for_each_word(text, [&](std::string_view as_it_stands) {
    std::string word = ascii_lower(as_it_stands);
    const bool common =
        std::find(kCommonWords.begin(), kCommonWords.end(), word) != kCommonWords.end();
    if (!common && words.size() < kWords) words.insert(std::move(word));
  });
  return words;
}

std::vector<std::string> rank_files(const fs::path& root, const std::vector<std::string>& files,
                                    const std::set<std::string>& words) {
  std::vector<Ranked> ranked;
  if (words.empty()) return {};
  const WordFinder finder(words);
  for (const std::string& path : files) {
    Ranked& file = ranked.emplace_back();
    file.path = &path;
    const std::size_t slash = path.rfind('/');
    const std::string_view whole = path;
    if (slash != std::string::npos) put(file, finder.in(whole.substr(0, slash)), kInFolder);
    put(file, finder.in(whole.substr(slash == std::string::npos ? 0 : slash + 1)), kInName);
  }
  // Contents only of the most promising, so that it takes as long in a large repository.
  std::stable_sort(ranked.begin(), ranked.end(), [](const Ranked& a, const Ranked& b) {
    return a.words.size() > b.words.size();
  });
  std::size_t left = kAllBytesRead;
  for (std::size_t i = 0; i < std::min(ranked.size(), kFilesRead) && left > 0; ++i) {
    const auto content = read_workspace_file(root, *ranked[i].path, kFileBytesRead);
    if (!content) continue;
    left -= std::min(left, content->size());
    if (is_text(*content)) put(ranked[i], finder.in(*content), kInContent);
  }
  std::map<std::string, double> files_with;
  for (const Ranked& file : ranked) {
    for (const auto& [word, weight] : file.words) ++files_with[word];
  }
  const auto all = static_cast<double>(ranked.size());
  for (Ranked& file : ranked) {
    for (const auto& [word, weight] : file.words) {
      file.score += weight * std::log(1 + all / files_with[word]);
    }
  }
  std::erase_if(ranked, [](const Ranked& file) { return file.words.empty(); });
  std::stable_sort(ranked.begin(), ranked.end(), [](const Ranked& a, const Ranked& b) {
    return std::pair(-a.score, std::string_view(*a.path)) <
           std::pair(-b.score, std::string_view(*b.path));
  });
  std::vector<std::string> paths;
  for (const Ranked& file : ranked) paths.push_back(*file.path);
  return paths;
}

namespace {

constexpr std::size_t kManyFiles = 20;  // of one folder: the first to be only counted

/// A folder as one line: its path, and the names of its files or their number.
struct Folder {
  std::vector<std::string> names;
  std::size_t count = 0;  ///< with those of the folders folded into it
  bool counted = false;

  std::string line(const std::string& path) const {
    std::string text = (path.empty() ? "./" : path) + ":";
    if (counted || count > names.size()) {
      return text + " " + std::to_string(count) + (count == 1 ? " file\n" : " files\n");
    }
    for (std::size_t i = 0; i < names.size(); ++i) text += (i == 0 ? " " : ", ") + names[i];
    return text + "\n";
  }
};
using Folders = std::map<std::string, Folder>;

/// The first `levels` folders of a path; the rest is folded into the last of them.
std::string folded(const std::string& folder, std::size_t levels) {
  std::size_t end = 0;
  for (std::size_t level = 0; level < levels; ++level) {
    const std::size_t slash = folder.find('/', end);
    if (slash == std::string::npos) return folder;
    end = slash + 1;
  }
  return folder.substr(0, end);
}

Folders folders_of(const std::vector<std::string>& files, std::size_t levels) {
  Folders folders;
  for (const std::string& file : files) {
    const std::size_t slash = file.rfind('/');
    const std::string whole = slash == std::string::npos ? "" : file.substr(0, slash + 1);
    const std::string shown = folded(whole, levels);
    Folder& folder = folders[printable(shown)];
    ++folder.count;
    if (shown == whole) folder.names.push_back(printable(file.substr(whole.size())));
  }
  return folders;
}

std::size_t size_of(const Folders& folders) {
  std::size_t bytes = 0;
  for (const auto& [path, folder] : folders) bytes += folder.line(path).size();
  return bytes;
}

/// Counts those with the most names, until all fits or none with many is left.
void count_large(Folders& folders, std::size_t bytes) {
  std::vector<std::pair<std::string, Folder*>> by_size;
  for (auto& [path, folder] : folders) {
    if (folder.names.size() > kManyFiles) by_size.emplace_back(path, &folder);
  }
  std::stable_sort(by_size.begin(), by_size.end(), [](const auto& a, const auto& b) {
    return a.second->names.size() > b.second->names.size();
  });
  std::size_t used = size_of(folders);
  for (const auto& [path, folder] : by_size) {
    if (used <= bytes) return;
    used -= folder->line(path).size();
    folder->counted = true;
    used += folder->line(path).size();
  }
}

}  // namespace

std::string tree_of(const std::vector<std::string>& files, std::size_t bytes) {
  std::size_t levels = 0;
  for (const std::string& file : files) {
    levels = std::max(levels, static_cast<std::size_t>(std::count(file.begin(), file.end(), '/')));
  }
  Folders folders = folders_of(files, levels);
  if (size_of(folders) > bytes) count_large(folders, bytes);
  while (size_of(folders) > bytes && levels > 1) {
    folders = folders_of(files, --levels);
    count_large(folders, bytes);
  }
  std::string text;
  std::size_t left_out = 0;
  for (const auto& [path, folder] : folders) {
    const std::string line = folder.line(path);
    if (text.size() + line.size() > bytes) {
      ++left_out;
    } else {
      text += line;
    }
  }
  if (left_out > 0) text += "… and " + std::to_string(left_out) + " more folders\n";
  return text;
}

std::string excerpt_of(std::string_view content, const std::set<std::string>& words,
                       std::size_t bytes) {
  if (content.size() <= bytes) return std::string(content);
  const std::vector<std::string_view> lines = split(content, '\n');
  std::vector<std::pair<std::size_t, std::size_t>> hits;  // words in the line, its index
  const WordFinder finder(words);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::size_t count = finder.in(lines[i].substr(0, limits::kKiB)).size();
    if (count > 0) hits.emplace_back(count, i);
  }
  std::stable_sort(hits.begin(), hits.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::set<std::size_t> chosen;
  std::size_t used = 0;
  const auto choose = [&](std::size_t line) {
    if (line >= lines.size() || chosen.contains(line)) return;
    const bool goes_on = chosen.contains(line + 1) || (line > 0 && chosen.contains(line - 1));
    const std::size_t cost = lines[line].size() + (goes_on ? 1 : 24);  // a new piece has a mark
    if (used + cost > bytes) return;
    used += cost;
    chosen.insert(line);
  };
  for (std::size_t line = 0; line < kBeginningLines; ++line) choose(line);
  for (const auto& [count, line] : hits) {
    for (std::size_t far = 0; far <= kAroundLines; ++far) {
      choose(line - std::min(line, far));
      choose(line + far);
    }
  }
  if (chosen.empty()) return {};
  std::string text;
  std::optional<std::size_t> last;
  for (const std::size_t line : chosen) {
    if (last ? line != *last + 1 : line != 0) {
      text += "… line " + std::to_string(line + 1) + ":\n";
    }
    text += std::string(lines[line]) + "\n";
    last = line;
  }
  return text + "… of " + std::to_string(lines.size()) + " lines\n";
}

}  // namespace necrocode::runner
