#include "necrocode/llm/answer_stream.hpp"

#include <algorithm>

#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/json_view.hpp"

namespace necrocode::llm {
namespace {

constexpr std::chrono::milliseconds kEndWait{1'000};  // after the last event, for the body's end
constexpr std::size_t kNameBytes = 1024;              // of a tool, a call, a model

bool is_good(Finish finish) {
  return finish == Finish::kStop || finish == Finish::kToolCalls;
}

[[noreturn]] void break_attempt(net::TransportFailure failure, const std::string& detail) {
  throw net::TransportError(failure, net::Delivery::kResponseStarted, false, detail);
}

// simdjson takes some twelve bytes for each value. Text holds commas too, so only what could be too
// many is counted by the reader that knows a limit.
bool has_too_many_values(std::string_view text) {
  if (text.size() <= limits::kJsonValues) return false;
  const auto marks = std::count_if(text.begin(), text.end(),
                                   [](char c) { return c == ',' || c == '[' || c == '{'; });
  return static_cast<std::size_t>(marks) > limits::kJsonValues && !Json::try_parse(text);
}

[[noreturn]] void too_large() {
  break_attempt(net::TransportFailure::kTooLarge, "the answer is larger than the limit of " +
                                                      std::to_string(limits::kModelAnswerBytes) +
                                                      " bytes");
}

}  // namespace

bool looks_like_events(std::string_view text) {
  return text.starts_with("data:") || text.starts_with("event:") || text.starts_with(':');
}

bool StreamEnd::progressed() {
  event_has_content_ = true;
  if (!is_good(finish_)) return finish_ == Finish::kNone;
  finish_ = Finish::kNone;  // some gateways say with each piece that it is the last
  return true;
}

bool StreamEnd::finish(Finish meaning) {
  const bool bad_before = finish_ != Finish::kNone && !is_good(finish_);
  if (bad_before || (finish_ == Finish::kToolCalls && meaning == Finish::kStop)) return false;
  finish_ = meaning;
  is_weak_ = event_has_content_;
  return true;
}

Completion read_whole(const Dialect& dialect, std::string_view body, int status) {
  JsonReaderLease reader;
  const auto json = has_too_many_values(body) ? std::nullopt : reader->read(body);
  if (!json) {
    const bool html = trim(body).starts_with("<");
    not_a_completion(html ? "it is a web page" : "it is not JSON", body, status);
  }
  if (!json->is_object()) not_a_completion("it is no JSON object", body, status);
  if (tells_an_error((*json)["error"])) {
    const std::string message = read_error(body).message;
    not_a_completion("it is an error under a status of success", message.empty() ? body : message,
                     status);
  }
  Completion completion;
  const std::string reason = dialect.read_answer(*json, completion);
  if (!reason.empty()) not_a_completion(reason, body, status);
  return completion;
}

void tell_whole(const Completion& completion, const OnDelta& on_delta) {
  if (!on_delta) return;
  if (!completion.reasoning.empty()) {
    on_delta({ChatDelta::Kind::kReasoning, completion.reasoning, 0});
  }
  if (!completion.content.empty()) on_delta({ChatDelta::Kind::kText, completion.content, 0});
  for (std::size_t i = 0; i < completion.tool_calls.size(); ++i) {
    on_delta({ChatDelta::Kind::kToolCall, completion.tool_calls[i].arguments, i});
  }
}

AnswerStream::AnswerStream(const Dialect& dialect, const ChatRequest& question,
                           const OnDelta& on_delta, std::chrono::milliseconds progress)
    : dialect_(dialect), question_(question), on_delta_(on_delta), progress_(progress) {}

AnswerStream::~AnswerStream() = default;

void AnswerStream::receive(net::HttpRequest& request) {
  request.on_head = [this](const net::HttpResponse& head) { begin(head); };
  request.on_body = [this](std::string_view bytes) { return take(bytes); };
  request.on_restart = [this](net::Headers&) { restart(); };
  request.progress_deadline = &give_up_;
}

void AnswerStream::begin(const net::HttpResponse& head) {
  const std::string type = ascii_lower(head.headers.get_or("content-type", ""));
  is_json_ = type.find("json") != std::string::npos;
  form_ = type.find("event-stream") != std::string::npos ? Form::kEvents : Form::kUnknown;
  give_up_ = real_clock().steady_now() + progress_;
  head_ = {head.status, head.headers, {}};
}

Usage AnswerStream::spent() const {
  Usage usage = lost_;
  if (kept_bytes_ > 0 || completion_.counts.prompt) usage += usage_of(completion_, question_);
  return usage;
}

void AnswerStream::restart() {
  lost_ = spent();
  form_ = Form::kUnknown;
  events_.emplace();
  whole_.clear();
  completion_ = {};
  kept_bytes_ = 0;
  numbers_.clear();
  answer_block.reset();
  ended_ = false;
  end_ = {};
  failure_.reset();
  if (std::exchange(told_, false)) on_delta_({ChatDelta::Kind::kRestart, {}, 0});
}

bool AnswerStream::take(std::string_view bytes) {
  if (form_ == Form::kUnknown) {
    form_ = !is_json_ && looks_like_events(trim(bytes)) ? Form::kEvents : Form::kWhole;
  }
  if (form_ == Form::kWhole) {
    if (whole_.size() + bytes.size() > limits::kModelAnswerBytes) too_large();
    whole_.append(bytes);
    return true;
  }
  events_->take(bytes, [this](const net::StreamEvent& event) { take_event(event); });
  if (ended_) {
    // Its end comes at once, as a rule, and leaves the connection for the next.
    give_up_ = std::min(give_up_, real_clock().steady_now() + kEndWait);
  } else if (std::exchange(has_progressed_, false)) {
    give_up_ = real_clock().steady_now() + progress_;
  }
  return true;
}

void AnswerStream::take_event(const net::StreamEvent& event) {
  if (ended_) return;
  const std::string_view text = trim(event.data);
  if (text.empty()) return;
  if (text == kStreamDone) return end();
  end_.begin_event();
  if (!json_) json_ = std::make_unique<JsonReaderLease>();
  const auto data = (*json_)->read(event.data);
  if (!data || !data->is_object()) {
    malformed("an event of the model's answer is no JSON object");
  }
  dialect_.read_event(event.name, *data, *this);
}

Completion AnswerStream::finish() {
  if (form_ == Form::kWhole) {
    completion_ = read_whole(dialect_, whole_, 200);
    tell_whole(completion_, on_delta_);
  }
  kept_bytes_ = 0;  // what comes of it is the caller's to count
  return std::exchange(completion_, {});
}

void AnswerStream::progressed(ChatDelta::Kind kind, std::string_view piece, std::size_t tool_call) {
  if (!end_.progressed()) malformed("the model's answer goes on after its end");
  completion_.finish = end_.finish();
  has_progressed_ = true;
  kept_bytes_ += piece.size();
  if (kept_bytes_ > limits::kModelAnswerBytes) too_large();
  if (!on_delta_) return;
  told_ = true;
  on_delta_({kind, piece, tool_call});
}

void AnswerStream::text(std::string_view piece) {
  if (piece.empty()) return;
  progressed(ChatDelta::Kind::kText, piece);
  completion_.content.append(piece);
}

void AnswerStream::reasoning(std::string_view piece) {
  if (piece.empty()) return;
  progressed(ChatDelta::Kind::kReasoning, piece);
  completion_.reasoning.append(piece);
}

void AnswerStream::refusal(std::string_view piece) {
  if (piece.empty()) return;
  progressed(ChatDelta::Kind::kText, piece);
  completion_.refusal.append(piece);
}

std::optional<std::size_t> AnswerStream::call_at(std::size_t index) const {
  const auto found = std::find(numbers_.rbegin(), numbers_.rend(), std::optional(index));
  if (found == numbers_.rend()) return std::nullopt;
  return static_cast<std::size_t>(numbers_.rend() - found) - 1;
}

std::size_t AnswerStream::begin_call(std::optional<std::size_t> index) {
  if (numbers_.size() >= kToolCallsMax) {
    break_attempt(net::TransportFailure::kTooLarge,
                  "the answer calls more than " + std::to_string(kToolCallsMax) + " tools");
  }
  numbers_.push_back(index);
  completion_.tool_calls.emplace_back();
  return numbers_.size() - 1;
}

void AnswerStream::tool_call(std::optional<std::size_t> index, std::string_view id,
                             std::string_view name, std::string_view arguments) {
  if (id.size() > kNameBytes || name.size() > kNameBytes) {
    malformed("the id or name of a tool's call is too long");
  }
  std::optional<std::size_t> at = index ? call_at(*index) : std::nullopt;
  if (!index && !numbers_.empty()) at = numbers_.size() - 1;
  if (at) {
    const ToolCall& last = completion_.tool_calls[*at];
    // Some services repeat id and name with each piece, some give each piece an id of its own, and
    // some count each call as the first; a call that begins has a name.
    const bool another_id = !id.empty() && !name.empty() && !last.id.empty() && last.id != id;
    if (another_id || (!index && id.empty() && !name.empty())) at.reset();
  }
  const bool begins = !at;
  if (begins && id.empty() && name.empty()) malformed("a tool's call begins without a name");
  if (!begins && arguments.empty()) return;
  if (begins) at = begin_call(index);
  progressed(ChatDelta::Kind::kToolCall, arguments, *at);
  ToolCall& call = completion_.tool_calls[*at];
  if (call.id.empty()) call.id = id;
  if (call.name.empty()) call.name = name;
  call.arguments.append(arguments);
}

void AnswerStream::whole_arguments(std::size_t index, std::string_view arguments) {
  if (const auto at = call_at(index)) completion_.tool_calls[*at].arguments = arguments;
}

void AnswerStream::finish(std::string_view reason, Finish meaning) {
  if (!end_.finish(meaning)) return;
  completion_.finish_reason = reason.substr(0, kNameBytes);
  completion_.finish = meaning;
}

void AnswerStream::malformed(const std::string& reason) {
  break_attempt(net::TransportFailure::kMalformed, reason);
}

void AnswerStream::fail(const ErrorWords& words) {
  failure_ = words;
  if (worth_retrying(words)) {
    break_attempt(net::TransportFailure::kReset, "the service failed in the middle of its answer");
  }
  ErrorInfo info;
  info.end = CallEnd::kPermanent;
  throw_refusal(status_of(words), words, std::move(info));
}

}  // namespace necrocode::llm
