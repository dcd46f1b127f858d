// A taskset's dependency graph as JSON, dot and mermaid text. Pure; reads no store.
#pragma once

#include <string>
#include <vector>

#include "necrocode/registry/task_store.hpp"

namespace necrocode::registry {

/// The execution order: every task stands in a later level than all it depends on, as early as it
/// can. Tasks of other tasksets stand in none.
std::vector<std::vector<std::string>> graph_levels(const TaskGraph& graph);
/// {"spec_name", "nodes": [{"id","title","state","external"?}], "edges": [{"from","to"}],
/// "levels": [[id]]}
Json graph_json(const TaskGraph& graph);
std::string graph_dot(const TaskGraph& graph);
std::string graph_mermaid(const TaskGraph& graph);

}  // namespace necrocode::registry
