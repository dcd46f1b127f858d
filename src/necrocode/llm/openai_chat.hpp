// The dialect of OpenAI's Chat Completions, as its own service, Azure, vLLM, llama.cpp, Ollama and
// OpenRouter speak it. Pure translation: no socket, no clock of its own, no memory.
// Source: OpenAI's API reference ("Chat completions", "Rate limits", "Error codes").
#pragma once

#include <string>

#include "necrocode/llm/model.hpp"
#include "necrocode/net/http_client.hpp"

namespace necrocode::llm::openai_chat {

/// How an answer's format can be asked for, the strongest first.
enum class Format { kJsonSchema, kJsonObject, kText };

/// What a request to this endpoint may hold. Begins with everything; each 400 takes something away.
struct Capabilities {
  Format format = Format::kJsonSchema;
  bool max_tokens = true;  ///< false: it is called max_completion_tokens
  bool temperature = true;
  friend bool operator==(const Capabilities&, const Capabilities&) = default;
};
/// What both allow.
Capabilities common(const Capabilities& a, const Capabilities& b);
/// The capabilities without what `answer`, a 400 to a request made with `used`, refuses; equal to
/// `used` when it teaches nothing.
Capabilities learn(const net::HttpResponse& answer, const ChatRequest& request,
                   const Capabilities& used);

/// `request` must have max_tokens and temperature filled in.
std::string request_body(const ChatRequest& request, const std::string& model,
                         const Capabilities& capabilities);

/// The service's own words, from any of the shapes in which they come; empty where there are none.
struct ErrorWords {
  std::string message;
  std::string code;  ///< code, or type where there is none
  std::string type;
  std::string param;
};
ErrorWords read_error(const std::string& body);

/// What an error answer is about, where its status alone does not say.
enum class Refusal { kOther, kQuota, kContextLength, kContentFilter };
Refusal classify(int status, const ErrorWords& words);

/// LESSONS: never 400, 401, 403, 404, 413, 422, quota, context length or filter, whatever the
/// server asks for; then x-should-retry; then 408, 425, 429 and 5xx but 501 and 505.
bool worth_retrying(const net::HttpResponse& answer);

/// A 2xx answer's completion. `request` serves the estimate of a usage that is missing; `spent` is
/// set as soon as there is a completion, so also when it cannot be used.
/// Throws InvalidResponse when it is no completion, ImplementationError when the completion cannot
/// be used; their `detail` is raw: the caller masks and shortens it.
ChatResponse read_completion(const net::HttpResponse& answer, const ChatRequest& request,
                             Usage& spent);

}  // namespace necrocode::llm::openai_chat
