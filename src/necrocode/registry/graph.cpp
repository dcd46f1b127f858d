#include "necrocode/registry/graph.hpp"

#include <algorithm>
#include <map>

#include "necrocode/base/text.hpp"

namespace necrocode::registry {
namespace {

constexpr std::size_t kTitleBytes = 60;

std::string label_of(const TaskGraph::Node& node) {
  std::string label = node.id;
  if (!node.title.empty()) label += " " + shorten(printable(node.title), kTitleBytes);
  return label;
}

const char* colour_of(TaskState state) {
  switch (state) {
    case TaskState::kBlocked:
      return "#d0d0d0";
    case TaskState::kReady:
      return "#ffe9a8";
    case TaskState::kRunning:
      return "#a8d1ff";
    case TaskState::kDone:
      return "#b6e3b6";
    case TaskState::kFailed:
      return "#ffb3b3";
    case TaskState::kCancelled:
      return "#e6e6e6";
  }
  return "#ffffff";
}

/// Mermaid takes entities only.
std::string mermaid_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '<' || c == '>' || c == '#' || c == '&' || c == ';' || c == '`') {
      out += "#" + std::to_string(static_cast<int>(c)) + ";";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

std::vector<std::vector<std::string>> graph_levels(const TaskGraph& graph) {
  std::map<std::string, std::size_t> open;  // parents without a level yet
  std::multimap<std::string, std::string> children;
  for (const TaskGraph::Node& node : graph.nodes) {
    if (!node.external) open[node.id] = 0;
  }
  for (const auto& [parent, child] : graph.edges) {
    if (open.count(parent) == 0 || open.count(child) == 0) continue;
    ++open[child];
    children.emplace(parent, child);
  }
  // The nodes' order (by number) is kept within a level.
  std::map<std::string, std::size_t> position;
  for (const TaskGraph::Node& node : graph.nodes) position.emplace(node.id, position.size());
  std::vector<std::string> level;
  for (const TaskGraph::Node& node : graph.nodes) {
    if (!node.external && open[node.id] == 0) level.push_back(node.id);
  }
  std::vector<std::vector<std::string>> levels;
  while (!level.empty()) {
    std::vector<std::string> next;
    for (const std::string& parent : level) {
      const auto [first, last] = children.equal_range(parent);
      for (auto edge = first; edge != last; ++edge) {
        if (--open[edge->second] == 0) next.push_back(edge->second);
      }
    }
    std::sort(next.begin(), next.end(), [&](const std::string& a, const std::string& b) {
      return position[a] < position[b];
    });
    levels.push_back(std::exchange(level, std::move(next)));
  }
  return levels;
}

Json graph_json(const TaskGraph& graph) {
  Json nodes = Json::array();
  for (const TaskGraph::Node& node : graph.nodes) {
    Json json =
        Json::object({{"id", node.id}, {"title", node.title}, {"state", to_string(node.state)}});
    if (node.external) json.set("external", true);
    nodes.push_back(std::move(json));
  }
  Json edges = Json::array();
  for (const auto& [parent, child] : graph.edges) {
    edges.push_back(Json::object({{"from", parent}, {"to", child}}));
  }
  Json levels = Json::array();
  for (const auto& level : graph_levels(graph)) levels.push_back(Json(level));
  return Json::object({{"spec_name", graph.spec_name},
                       {"nodes", std::move(nodes)},
                       {"edges", std::move(edges)},
                       {"levels", std::move(levels)}});
}

std::string graph_dot(const TaskGraph& graph) {
  const auto quoted = [](const std::string& text) {
    return "\"" + replace_all(replace_all(text, "\\", "\\\\"), "\"", "\\\"") + "\"";
  };
  std::string out =
      "digraph " + quoted(graph.spec_name) + " {\n  rankdir=LR;\n  node [shape=box];\n";
  for (const TaskGraph::Node& node : graph.nodes) {
    out += "  " + quoted(node.id) + " [label=" + quoted(label_of(node)) + ", style=\"filled" +
           (node.external ? ",dashed" : "") + "\", fillcolor=\"" + colour_of(node.state) + "\"];\n";
  }
  for (const auto& [parent, child] : graph.edges) {
    out += "  " + quoted(parent) + " -> " + quoted(child) + ";\n";
  }
  return out + "}\n";
}

std::string graph_mermaid(const TaskGraph& graph) {
  std::string out = "graph LR\n";
  std::map<std::string, std::string> names;  // a task id is no mermaid id
  for (const TaskGraph::Node& node : graph.nodes) {
    const std::string name = "t" + std::to_string(names.size());
    names[node.id] = name;
    out += "  " + name + "[\"" + mermaid_text(label_of(node)) + "\"]\n";
    out += "  style " + name + " fill:" + colour_of(node.state) + "\n";
  }
  for (const auto& [parent, child] : graph.edges) {
    out += "  " + names[parent] + " --> " + names[child] + "\n";
  }
  return out;
}

}  // namespace necrocode::registry
