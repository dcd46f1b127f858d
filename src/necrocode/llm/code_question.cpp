#include "necrocode/llm/code_question.hpp"

#include <string>
#include <vector>

namespace necrocode::llm {
namespace {

constexpr std::string_view kSystemPrompt =
    R"(You change source code in a git repository. Answer with exactly one JSON object and nothing
else: no prose, no Markdown fence. Its form:

{"code_changes":[{"file_path":"src/a.py","operation":"create","content":"all of it","edits":null,
 "diff":null}],"explanation":"one or two sentences"}

Each element of code_changes changes one file:
- "file_path": relative to the repository's root, with "/" between its parts. Never absolute, never
  with "..", never inside .git. Name each file once.
- "operation": "create" for a new file, "modify" for one that exists, "delete" to remove one.
- "content": the whole new text of the file, for create, and for modify if you rewrite the file.
- "edits": for modify, instead of content: a list of {"search","replace"}. Each "search" is copied
  exactly from the file, with its whitespace, and is long enough to occur there only once; it is
  replaced by "replace". Edits apply in order.
- "diff": for modify, instead of both: hunks of a unified diff of this file. Where you are not sure
  of a header's numbers, write a plain @@.
- Give one of content, edits and diff, the others null. For delete all are null.

Change only what the task needs. Do not weaken, skip or delete tests unless the task says so. All
changes are applied together or not at all; then the repository's tests are run.)";

Json nullable(std::string_view type) {
  return Json(std::vector<std::string>{std::string(type), "null"});
}

Json closed_object(Json::Object properties) {
  Json names = Json::array();
  for (const auto& [name, schema] : properties) names.push_back(name);
  return Json::object({{"type", "object"},
                       {"properties", Json(std::move(properties))},
                       {"required", std::move(names)},
                       {"additionalProperties", false}});
}

}  // namespace

std::string_view code_system_prompt() {
  return kSystemPrompt;
}

Json code_change_schema() {
  const Json string = Json::object({{"type", "string"}});
  const Json edit = closed_object({{"search", string}, {"replace", string}});
  const Json change = closed_object(
      {{"file_path", string},
       {"operation",
        Json::object({{"type", "string"},
                      {"enum", std::vector<std::string>{"create", "modify", "delete"}}})},
       {"content", Json::object({{"type", nullable("string")}})},
       {"edits", Json::object({{"type", nullable("array")}, {"items", edit}})},
       {"diff", Json::object({{"type", nullable("string")}})}});
  return closed_object({{"code_changes", Json::object({{"type", "array"}, {"items", change}})},
                        {"explanation", string}});
}

}  // namespace necrocode::llm
