#include "necrocode/registry/graph.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "necrocode/base/text.hpp"

namespace necrocode::registry {
namespace {

constexpr std::size_t kTitleBytes = 60;

std::string label_of(const TaskGraph::Node& node) {
  std::string label = node.id + " (" + std::string(to_string(node.state)) + ")";
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

/// What the dependent does when its parent fails.
std::string on_failure(const TaskGraph::Edge& edge) {
  return "on failure: " + std::string(to_string(edge.policy));
}

/// Those that hold who waits for them.
std::set<std::string> ended_badly(const TaskGraph& graph) {
  std::set<std::string> ids;
  for (const TaskGraph::Node& node : graph.nodes) {
    if (node.state == TaskState::kFailed || node.state == TaskState::kCancelled) {
      ids.insert(node.id);
    }
  }
  return ids;
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
  for (const TaskGraph::Edge& edge : graph.edges) {
    if (open.count(edge.parent) == 0 || open.count(edge.child) == 0) continue;
    ++open[edge.child];
    children.emplace(edge.parent, edge.child);
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
  for (const TaskGraph::Edge& edge : graph.edges) {
    Json json = Json::object({{"from", edge.parent}, {"to", edge.child}});
    if (edge.policy != DependencyPolicy::kBlock) json.set("on_failure", to_string(edge.policy));
    edges.push_back(std::move(json));
  }
  Json levels = Json::array();
  for (const auto& level : graph_levels(graph)) levels.push_back(Json(level));
  return Json::object({{"spec_name", graph.spec_name},
                       {"nodes", std::move(nodes)},
                       {"edges", std::move(edges)},
                       {"levels", std::move(levels)}});
}

std::string graph_dot(const TaskGraph& graph) {
  const std::set<std::string> holding = ended_badly(graph);
  const auto quoted = [](const std::string& text) {
    return "\"" + replace_all(replace_all(text, "\\", "\\\\"), "\"", "\\\"") + "\"";
  };
  std::string out =
      "digraph " + quoted(graph.spec_name) + " {\n  rankdir=LR;\n  node [shape=box];\n";
  for (const TaskGraph::Node& node : graph.nodes) {
    out += "  " + quoted(node.id) + " [label=" + quoted(label_of(node)) + ", style=\"filled" +
           (node.external ? ",dashed" : "") + "\", fillcolor=\"" + colour_of(node.state) + "\"];\n";
  }
  for (const TaskGraph::Edge& edge : graph.edges) {
    out += "  " + quoted(edge.parent) + " -> " + quoted(edge.child);
    if (edge.policy != DependencyPolicy::kBlock) {
      out += " [style=dashed, label=" + quoted(on_failure(edge)) + "]";
    } else if (holding.contains(edge.parent)) {
      out += " [color=red]";
    }
    out += ";\n";
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
  for (const TaskGraph::Edge& edge : graph.edges) {
    const bool blocks = edge.policy == DependencyPolicy::kBlock;
    const std::string arrow = blocks ? " --> " : " -.->|" + on_failure(edge) + "| ";
    out += "  " + names[edge.parent] + arrow + names[edge.child] + "\n";
  }
  return out;
}

}  // namespace necrocode::registry
