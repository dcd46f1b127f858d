#include "necrocode/llm/model.hpp"

namespace necrocode::llm {

Usage& Usage::operator+=(const Usage& other) {
  prompt_tokens += other.prompt_tokens;
  completion_tokens += other.completion_tokens;
  total_tokens += other.total_tokens;
  cached_tokens += other.cached_tokens;
  reasoning_tokens += other.reasoning_tokens;
  estimated = estimated || other.estimated;
  return *this;
}

Json Usage::to_json() const {
  return Json::object({{"prompt_tokens", prompt_tokens},
                       {"completion_tokens", completion_tokens},
                       {"total_tokens", total_tokens},
                       {"cached_tokens", cached_tokens},
                       {"reasoning_tokens", reasoning_tokens},
                       {"estimated", estimated}});
}

std::string_view to_string(Operation operation) {
  switch (operation) {
    case Operation::kCreate:
      return "create";
    case Operation::kModify:
      return "modify";
    case Operation::kDelete:
      return "delete";
  }
  return "modify";
}

}  // namespace necrocode::llm
