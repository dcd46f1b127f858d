// The language model's vocabulary: what every dialect is translated from and to.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/base/json.hpp"
#include "necrocode/base/masking.hpp"

namespace necrocode::llm {

/// One turn of a conversation.
struct Message {
  std::string role;  ///< system, user, assistant
  std::string content;
};

/// What is asked of the model.
struct ChatRequest {
  std::vector<Message> messages;      ///< in order; the last one is to be answered
  int max_tokens = 0;                 ///< 0: the configuration's
  std::optional<double> temperature;  ///< 0 to 2; nothing: the configuration's
  /// A JSON schema that the answer should follow, or null. Asked for as `json_schema`; an endpoint
  /// that refuses it is asked for any JSON object instead, then for plain text.
  Json json_schema;
};

/// What an answer cost, in tokens, as the endpoint counts them.
struct Usage {
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;
  std::int64_t total_tokens = 0;
  std::int64_t cached_tokens = 0;     ///< of the prompt's
  std::int64_t reasoning_tokens = 0;  ///< of the completion's
  bool estimated = false;             ///< the endpoint gave none: about four bytes a token
  Usage& operator+=(const Usage& other);
  Json to_json() const;
};

/// A whole answer; one that was cut off, refused or filtered is an error instead.
struct ChatResponse {
  std::string content;        ///< never empty
  std::string model;          ///< that answered, as the endpoint names it
  std::string finish_reason;  ///< as the endpoint gave it
  std::string request_id;     ///< the endpoint's, for asking its operators; may be empty
  Usage usage;
  int attempts = 0;                       ///< requests sent, retries included
  std::chrono::milliseconds duration{0};  ///< of all of them, waits included
};

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
};

/// What LLMClient::generate_code() answers.
struct LLMResponse {
  std::vector<CodeChange> code_changes;  ///< each file once; to be applied all or none
  std::string explanation;               ///< the model's, not checked; may be empty
  std::string model;                     ///< that answered
  Usage usage;
  std::string raw;                        ///< the model's text, as it came
  int attempts = 0;                       ///< requests sent, retries included
  std::chrono::milliseconds duration{0};  ///< of all of them, waits included
};

/// Reads the code-change JSON as models give it: bare, fenced in Markdown, after prose, with a BOM.
/// An object within a broken one is not taken, nor one whose members stand twice. Throws
/// ImplementationError with the reason and the first 500 characters, masked; SecurityError for a
/// path that is absolute, has "..", "", ".git" parts (any case, also 8.3 names), NUL or a newline.
std::vector<CodeChange> parse_code_changes(std::string_view text, std::string& explanation,
                                           const Masker& masker = Masker());

}  // namespace necrocode::llm
