// The three dialects from the service's side: what is asked in each, and how one answer is spoken
// in each, whole and streamed. By OpenAI's API reference (Chat Completions, Responses and their
// streaming events) and Anthropic's (Messages, "Streaming Messages"). No sockets.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/json.hpp"
#include "necrocode/llm/cassette.hpp"

namespace necrocode::llm {

enum class ModelApi { kChat, kResponses, kMessages };

/// A route under which an API is served.
struct ModelRoute {
  std::string_view pattern;  ///< of net::HttpServer; {deployment} names Azure's
  ModelApi api;
};
/// All of them: as the vendors name them; Azure's; without the version, and with it twice, as
/// clients ask that add or leave it out by themselves.
std::span<const ModelRoute> model_routes();

/// What is asked, as far as an answer depends on it.
struct Question {
  std::string model;
  /// The contents of all messages (system prompt, instructions, input, tool results), joined by
  /// newlines.
  std::string text;
  std::string last;  ///< the contents after the last turn of the model's: what is new
  bool stream = false;
  bool stream_usage = false;  ///< Chat Completions' stream_options.include_usage
};

/// Reads a request. `defect` says what is wrong with one that asks nothing, and is else empty.
Question read_question(ModelApi api, const Json& body, std::string& defect);

/// A refusal or failure in the API's own shape.
struct SpokenError {
  int status = 500;
  std::string message;
  std::string code{};  ///< OpenAI's; Anthropic has none
};
Json error_body(ModelApi api, const SpokenError& error);

/// The answer as one body.
Json whole_answer(ModelApi api, const CompletionAnswer& answer, const Question& question);
/// The answer as server-sent events, each as it goes over the wire. A text is cut into pieces of
/// CompletionAnswer::chunk bytes at the borders of characters; a long one into at most 10,000.
std::vector<std::string> streamed_answer(ModelApi api, const CompletionAnswer& answer,
                                         const Question& question);
/// The event that tells of a failure in the middle of a stream.
std::string error_event(ModelApi api, const SpokenError& error);
/// What a service sends when it has nothing to say yet.
std::string sign_of_life(ModelApi api);

}  // namespace necrocode::llm
