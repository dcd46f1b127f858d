#include "necrocode/llm/model.hpp"

namespace necrocode::llm {

Usage& Usage::operator+=(const Usage& other) {
  const bool any_estimated = estimated || other.estimated;
  if (empty() && !other.empty()) {
    *this = other;
  } else if (!other.empty()) {
    prompt_tokens += other.prompt_tokens;
    completion_tokens += other.completion_tokens;
    total_tokens += other.total_tokens;
    cached_tokens += other.cached_tokens;
    cache_write_tokens += other.cache_write_tokens;
    reasoning_tokens += other.reasoning_tokens;
    if (cost_usd && other.cost_usd) {
      *cost_usd += *other.cost_usd;
    } else {
      cost_usd.reset();
    }
  }
  estimated = any_estimated;
  return *this;
}

Json Usage::to_json() const {
  return Json::object({{"prompt_tokens", prompt_tokens},
                       {"completion_tokens", completion_tokens},
                       {"total_tokens", total_tokens},
                       {"cached_tokens", cached_tokens},
                       {"cache_write_tokens", cache_write_tokens},
                       {"reasoning_tokens", reasoning_tokens},
                       {"estimated", estimated},
                       {"cost_usd", cost_usd}});
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
