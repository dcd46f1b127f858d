// Dialect: one way of speaking to a model service. One file each behind this interface; what is
// common to them (retries, timers, fallbacks, what an answer is worth) is not theirs.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "necrocode/llm/capabilities.hpp"
#include "necrocode/llm/completion.hpp"
#include "necrocode/llm/service_errors.hpp"
#include "necrocode/net/http.hpp"

namespace necrocode::llm {

class JsonView;

/// An answer that comes in pieces, as a dialect fills it: each call adds to the completion, counts
/// as progress where it does, and is told to whoever listens.
class AnswerPieces {
 public:
  virtual ~AnswerPieces() = default;
  virtual Completion& completion() = 0;
  /// The block whose pieces are the answer, of a dialect where that is a tool's input.
  std::optional<std::size_t> answer_block{};
  virtual void text(std::string_view piece) = 0;
  virtual void reasoning(std::string_view piece) = 0;
  virtual void refusal(std::string_view piece) = 0;
  /// A call of a tool begins or goes on: the last one that has the stream's own number `index`, or
  /// without a number the last one. Another id than that one's, or where there is no number a name
  /// or another id, begins another call.
  virtual void tool_call(std::optional<std::size_t> index, std::string_view id,
                         std::string_view name, std::string_view arguments) = 0;
  /// All the arguments of the call `index`: they replace what came of them.
  virtual void whole_arguments(std::size_t index, std::string_view arguments) = 0;
  /// Whether a call of that number has begun.
  virtual bool has_tool_call(std::size_t index) const = 0;
  /// The answer says why it ended; also more than once, and at some services with each piece.
  virtual void finish(std::string_view reason, Finish meaning) = 0;
  /// Nothing of importance follows: the end itself need not be waited for.
  virtual void end() = 0;
  /// What came cannot be an answer.
  [[noreturn]] virtual void malformed(const std::string& reason) = 0;
  /// The service failed in the middle.
  [[noreturn]] virtual void fail(const ErrorWords& words) = 0;
};

/// Stateless and thread-safe.
class Dialect {
 public:
  virtual ~Dialect() = default;
  virtual std::string_view name() const = 0;  ///< LLMConfig::provider
  virtual std::string_view path() const = 0;  ///< below the endpoint: "/chat/completions"
  /// What asks for the longest list of models that there is.
  virtual std::string_view models_path() const { return "/models"; }
  virtual void authorize(net::Headers& headers, std::string_view key) const = 0;
  /// What is always sent beside the key.
  virtual void add_headers(net::Headers& headers) const { static_cast<void>(headers); }
  /// `request` has max_tokens and temperature filled in, and was checked.
  virtual std::string request_body(const ChatRequest& request, const std::string& model,
                                   const Capabilities& capabilities, bool stream) const = 0;
  /// Reads a whole answer, an object. Why it is none of this dialect's; empty when it is one.
  virtual std::string read_answer(JsonView body, Completion& completion) const = 0;
  /// Reads one event of a streamed answer. What it does not know is passed over.
  virtual void read_event(std::string_view event, JsonView data, AnswerPieces& pieces) const = 0;
};

/// By LLMConfig::provider; nullptr for an unknown one.
const Dialect* find_dialect(std::string_view provider);
/// "openai-chat, openai-responses or anthropic"
std::string known_dialects();

const Dialect& openai_chat();       ///< OpenAI Chat Completions, and what is compatible with it
const Dialect& openai_responses();  ///< OpenAI Responses
const Dialect& anthropic();         ///< Anthropic Messages

/// The capabilities without what the 400 or 422 `answer` to a request made with `used` refuses;
/// equal to `used` when it teaches nothing. A lesson is only kept once the request without it
/// succeeded.
Capabilities learn(const net::HttpResponse& answer, const ChatRequest& request, bool streamed,
                   const Capabilities& used);

// What the dialects have in common.

inline constexpr std::size_t kToolCallsMax = 128;  // of one answer
/// The arguments of a call in a whole answer: text, or by some services an object.
std::string arguments_text(JsonView arguments);
/// A call of a whole answer is added; why not, or empty.
std::string add_tool_call(Completion& completion, ToolCall call);

/// Whether `tool_choice` is one of the words that all dialects know, not a tool's name.
bool is_general_choice(std::string_view tool_choice);
/// "{…}" as JSON; an empty object where it is none.
Json arguments_object(const std::string& arguments);

}  // namespace necrocode::llm
