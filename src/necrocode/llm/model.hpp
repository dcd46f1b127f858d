// The language model's vocabulary: what every dialect is translated from and to.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/base/json.hpp"
#include "necrocode/base/masking.hpp"

namespace necrocode::llm {

/// One call of a tool, as the model asks for it.
struct ToolCall {
  std::string id;         ///< what the tool's message answers by
  std::string name;       ///< of the tool
  std::string arguments;  ///< the text of a JSON object, as the model wrote it
};

/// One turn of a conversation.
struct Message {
  std::string role;  ///< system, user, assistant, tool
  std::string content;
  std::vector<ToolCall> tool_calls{};  ///< of an assistant's turn
  std::string tool_call_id{};  ///< of a tool's turn: the call that `content` is the result of
};

/// What the model may call.
struct Tool {
  std::string name;  ///< [A-Za-z0-9_-]{1,64}
  std::string description;
  Json parameters;  ///< a JSON schema of type object
};

/// What is asked of the model.
struct ChatRequest {
  std::vector<Message> messages;        ///< in order; the last one is to be answered
  int max_tokens = 0;                   ///< 0: the configuration's
  std::optional<double> temperature{};  ///< 0 to 2; nothing: the configuration's
  /// A JSON schema that the answer should follow, or null. Asked for as the dialect's strictest
  /// form; an endpoint that refuses it is asked for any JSON object instead, then for plain text.
  Json json_schema{};
  std::vector<Tool> tools{};
  std::string tool_choice{};  ///< "" or "auto", "none", "required", or the name of one of the tools
};

/// What an answer cost, in tokens, as the endpoint counts them, and in US dollars.
struct Usage {
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;
  std::int64_t total_tokens = 0;
  std::int64_t cached_tokens = 0;       ///< of the prompt's: read from the provider's cache
  std::int64_t cache_write_tokens = 0;  ///< of the prompt's: written to it
  std::int64_t reasoning_tokens = 0;    ///< of the completion's
  bool estimated = false;               ///< the endpoint gave none: about four bytes a token
  /// By the price table; nothing when it has no price for the model, of a sum when it has none for
  /// one of the answers.
  std::optional<double> cost_usd{};
  bool empty() const { return total_tokens == 0 && prompt_tokens == 0 && completion_tokens == 0; }
  Usage& operator+=(const Usage& other);
  Json to_json() const;
};

/// A whole answer; one that was cut off, refused or filtered is an error instead.
struct ChatResponse {
  std::string content;                 ///< empty only beside tool_calls
  std::string reasoning{};             ///< what the model thought, where the endpoint tells it
  std::vector<ToolCall> tool_calls{};  ///< in the model's order
  std::string model{};                 ///< that answered, as the endpoint names it
  std::string endpoint{};              ///< that answered: the configured one, or a fallback
  std::string finish_reason{};         ///< as the endpoint gave it
  std::string request_id{};            ///< the endpoint's, for asking its operators; may be empty
  Usage usage{};
  int attempts = 0;                 ///< requests sent, retries and fallbacks included
  bool maybe_billed_twice = false;  ///< an earlier attempt may have been carried out, unanswered
  std::chrono::milliseconds duration{0};  ///< of all of them, waits included
};

/// A piece of an answer on its way.
struct ChatDelta {
  enum class Kind {
    kText,       ///< of the content
    kReasoning,  ///< of what the model thinks
    kToolCall,   ///< of a call's arguments; `text` may be empty when a call begins
    kRestart,    ///< what came so far is void: the answer broke off, and another attempt begins
  };
  Kind kind = Kind::kText;
  std::string_view text;      ///< valid during the call
  std::size_t tool_call = 0;  ///< which one, in the model's order
};
/// Gets an answer's pieces on the caller's thread. The stall timer waits while it runs.
using OnDelta = std::function<void(const ChatDelta&)>;

/// What to do with a file. Creating one that exists replaces it.
enum class Operation { kCreate, kModify, kDelete };
std::string_view to_string(Operation operation);

/// Replaces one exact, unique occurrence.
struct Edit {
  std::string search;
  std::string replace;
};

/// What the model wants done with one file.
struct CodeChange {
  std::string
      file_path;  ///< relative, validated for shape only; the runner checks it against the disk
  Operation operation = Operation::kModify;
  std::optional<std::string> content;  ///< the whole new text, for kCreate and kModify
  std::vector<Edit> edits;             ///< instead of content, for kModify
  std::string diff{};                  ///< instead of both, for kModify: hunks of a unified diff
};

/// What LLMClient::generate_code() answers.
struct LLMResponse {
  std::vector<CodeChange> code_changes;  ///< each file once; to be applied all or none
  std::string explanation;               ///< the model's, not checked; may be empty
  std::string model;                     ///< that answered
  Usage usage;
  std::string raw;                        ///< the model's text, as it came
  int attempts = 0;                       ///< requests sent, retries and fallbacks included
  std::chrono::milliseconds duration{0};  ///< of all of them, waits included
};

/// Reads the code-change JSON as models give it: bare, fenced in Markdown, after prose, with a BOM.
/// An object within a broken one is not taken, nor one whose members stand twice. An answer that
/// has no such object but is a unified diff, fenced or after prose, is taken as the JSON that says
/// the same: a new file is create, a deleted one delete, the others modify; what JSON could not say
/// (renames, modes, links, binary patches) is refused.
/// Each file may be named once; names are compared byte by byte, without "./" before them: `A` and
/// `a` are two files, as they are where the runner works.
/// Throws ImplementationError with the reason, every defect with its JSON pointer (of the same
/// JSON, for a diff) and the first 500 characters, masked; SecurityError for a path that is
/// absolute, has "..", "", ".git" parts (any case, also 8.3 names), NUL or a newline.
std::vector<CodeChange> parse_code_changes(std::string_view text, std::string& explanation,
                                           const Masker& masker = Masker());

}  // namespace necrocode::llm
