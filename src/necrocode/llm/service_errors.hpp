// What a model service's refusals mean: its words out of every shape in which they come, the class
// they belong to, whether another attempt may help, and the error that a caller sees. One table for
// all dialects; a refusal in the middle of a stream counts as an answer with its status.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "necrocode/base/errors.hpp"
#include "necrocode/net/http_client.hpp"

namespace necrocode::llm {

/// The service's own words; empty where there are none.
struct ErrorWords {
  std::string message;
  std::string code;  ///< code, or type where there is none
  std::string type;
  std::string param;
};
ErrorWords read_error(std::string_view body);
/// Whether one of `words` stands in `text`: refusals are sentences.
bool contains_any(std::string_view text, std::initializer_list<std::string_view> words);
/// The status that a refusal within a stream would have had; 500 where its words tell none.
int status_of(const ErrorWords& words);

/// What an error answer is about, where its status alone does not say.
enum class Refusal { kOther, kQuota, kContextLength, kContentFilter };
Refusal classify(int status, const ErrorWords& words);

/// LESSONS: never 400, 401, 403, 404, 413, 422, quota, context length or filter, whatever the
/// server asks for; then x-should-retry; then 408, 425, 429 and 5xx but 501 and 505.
bool worth_retrying(const net::HttpResponse& answer);
/// The same of a refusal within a stream.
bool worth_retrying(const ErrorWords& words);

/// Throws what an answer that is not 2xx means (see LLMClient), with `info`, to which the service's
/// words are added as they came: the caller masks and shortens them.
[[noreturn]] void throw_refusal(int status, const ErrorWords& words, ErrorInfo info);

}  // namespace necrocode::llm
