#include "necrocode/config/yaml.hpp"

#include <yaml-cpp/yaml.h>

#include <set>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::config {
namespace {

// A task file or a configuration has a few hundred nodes; an alias bomb has billions.
constexpr std::size_t kNodes = 20'000;
constexpr std::size_t kBytes = 4 * limits::kMiB;
constexpr std::size_t kDepth = 32;

class Converter {
 public:
  Converter(std::string_view what, std::map<std::string, int>* lines)
      : what_(what), lines_(lines) {}

  Json convert(const YAML::Node& node, const std::string& pointer, std::size_t depth) {
    if (depth > kDepth) fail(node, "nested deeper than " + std::to_string(kDepth) + " levels");
    if (++nodes_ > kNodes)
      fail(node, "more than " + std::to_string(kNodes) + " nodes, aliases expanded");
    if (lines_) (*lines_)[pointer] = node.Mark().line + 1;
    switch (node.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null:
        return {};
      case YAML::NodeType::Scalar:
        count_bytes(node, node.Scalar().size());
        return scalar(node);
      case YAML::NodeType::Sequence: {
        Json array = Json::array();
        for (const YAML::Node& item : node) {
          array.push_back(convert(item, pointer + "/" + std::to_string(array.size()), depth + 1));
        }
        return array;
      }
      case YAML::NodeType::Map:
        return map(node, pointer, depth);
    }
    return {};
  }

 private:
  Json map(const YAML::Node& node, const std::string& pointer, std::size_t depth) {
    Json object = Json::object();
    std::set<std::string> names;
    for (const auto& member : node) {
      if (!member.first.IsScalar()) fail(member.first, "a key must be a plain word");
      const std::string& name = member.first.Scalar();
      count_bytes(member.first, name.size());
      if (!names.insert(name).second) {
        fail(member.first, "the key \"" + printable(name) + "\" stands twice");
      }
      object.members().emplace_back(name, convert(member.second, pointer + "/" + name, depth + 1));
    }
    return object;
  }

  // Each alias of a scalar is a copy of it.
  void count_bytes(const YAML::Node& node, std::size_t bytes) {
    bytes_ += bytes;
    if (bytes_ > kBytes) fail(node, "more than 4 MiB of text, aliases expanded");
  }

  // "!" is yaml-cpp's tag for a quoted scalar; "!!str" says the same.
  static Json scalar(const YAML::Node& node) {
    const std::string& text = node.Scalar();
    if (node.Tag() == "!" || node.Tag() == "tag:yaml.org,2002:str") return text;
    if (text == "~" || text == "null" || text == "Null" || text == "NULL") return {};
    if (text == "true" || text == "True" || text == "TRUE") return true;
    if (text == "false" || text == "False" || text == "FALSE") return false;
    const bool plus = text.size() > 1 && text[0] == '+' && text[1] != '-';
    const std::string_view unsigned_text = std::string_view(text).substr(plus ? 1 : 0);
    if (const auto integer = parse_int(unsigned_text)) return *integer;
    const bool looks_like_number = text.find_first_not_of("+-.0123456789eE") == std::string::npos;
    const auto number = looks_like_number ? parse_double(unsigned_text) : std::nullopt;
    return number ? Json(*number) : Json(text);
  }

  [[noreturn]] void fail(const YAML::Node& node, const std::string& problem) const {
    throw ConfigError(std::string(what_) + ", line " + std::to_string(node.Mark().line + 1) + ": " +
                      problem);
  }

  std::string_view what_;
  std::map<std::string, int>* lines_;
  std::size_t nodes_ = 0;
  std::size_t bytes_ = 0;
};

// yaml-cpp parses nested flow collections recursively, so depth is bounded before it sees the text.
void check_before_parsing(std::string_view text, std::string_view what) {
  if (text.size() > kBytes) throw ConfigError(std::string(what) + " is larger than 4 MiB");
  if (!is_utf8(text) || text.find('\0') != std::string_view::npos) {
    throw ConfigError(std::string(what) + " is not UTF-8 text");
  }
  std::size_t open = 0;
  int line = 1;
  for (const char c : text) {
    if (c == '\n') ++line;
    if (c == '[' || c == '{') ++open;
    if ((c == ']' || c == '}') && open > 0) --open;
    if (open > 200) {
      throw ConfigError(std::string(what) + ", line " + std::to_string(line) +
                        ": nested too deeply");
    }
  }
  for (const std::string_view row : split(text, '\n')) {
    const std::size_t indent = row.find_first_not_of("- ?");
    if (indent != std::string_view::npos && indent > 400) {
      throw ConfigError(std::string(what) + ": a line is indented by more than 400 columns");
    }
  }
}

}  // namespace

Json parse_yaml(std::string_view text, std::string_view what, std::map<std::string, int>* lines) {
  check_before_parsing(text, what);
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.empty()) return {};
    if (documents.size() > 1) {
      throw ConfigError(std::string(what) + ", line " +
                        std::to_string(documents[1].Mark().line + 1) +
                        ": a second document begins; only one is read");
    }
    return Converter(what, lines).convert(documents.front(), "", 0);
  } catch (const YAML::Exception& error) {
    throw ConfigError(std::string(what) + ", line " + std::to_string(error.mark.line + 1) + ": " +
                      error.msg);
  }
}

}  // namespace necrocode::config
