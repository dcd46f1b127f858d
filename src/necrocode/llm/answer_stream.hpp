// AnswerStream: a model's answer as its bytes come: server-sent events in a dialect's words, or a
// whole JSON answer of a service that does not stream. Knows nothing of sockets, retries or errors'
// meaning beyond this answer.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/clock.hpp"
#include "necrocode/llm/dialect.hpp"
#include "necrocode/net/event_stream.hpp"
#include "necrocode/net/http_client.hpp"

namespace necrocode::llm {

class JsonReaderLease;

inline constexpr std::string_view kStreamDone = "[DONE]";  ///< an OpenAI stream's last event
/// How an event stream begins, for services that do not say that it is one.
bool looks_like_events(std::string_view text);

/// Whether a stream has come to its end, by what its events say.
class StreamEnd {
 public:
  Finish finish() const { return finish_; }
  void begin_event() { event_has_content_ = false; }
  /// A piece of content came. False when it follows an end after which nothing may come.
  bool progressed();
  /// Of several words a bad one counts, and calls of tools before a plain end. One that comes with
  /// content may only be a gateway's habit: then the stream's end has to come, too. False: what was
  /// said before stands.
  bool finish(Finish meaning);
  /// `ended`: the stream said so itself.
  bool is_finished(bool ended) const { return finish_ != Finish::kNone && (ended || !is_weak_); }

 private:
  Finish finish_ = Finish::kNone;
  bool is_weak_ = false;            // it came together with content
  bool event_has_content_ = false;  // the one that is read
};

/// Of one request and all its attempts; not thread-safe.
class AnswerStream final : private AnswerPieces {
 public:
  /// `on_delta` may be empty. `progress`: how long there may be no progress. What is referred to
  /// must outlive it.
  AnswerStream(const Dialect& dialect, const ChatRequest& question, const OnDelta& on_delta,
               std::chrono::milliseconds progress);
  ~AnswerStream() override;

  /// Makes `request` stream into this object, which must outlive its sending.
  void receive(net::HttpRequest& request);
  /// True of a 2xx answer that ended without saying that it was whole.
  bool broke_off() const { return form_ != Form::kWhole && !is_finished(); }
  /// It is whole, whatever becomes of the connection.
  bool complete() const { return form_ == Form::kEvents && is_finished(); }
  /// The head of the last attempt that brought one; status 0 when none did.
  const net::HttpResponse& head() const { return head_; }
  /// The answer, when it did not break off; throws InvalidResponse for what is no completion.
  Completion finish();
  /// What has come of it so far.
  const Completion& so_far() const { return completion_; }
  /// What attempts that broke off have used, as far as it can be known, and been billed for.
  const Usage& lost() const { return lost_; }
  /// The same with what came of the last one.
  Usage spent() const;
  /// What the service said when it failed in the middle of the last attempt.
  const std::optional<ErrorWords>& failure() const { return failure_; }

 private:
  enum class Form { kUnknown, kEvents, kWhole };

  bool is_finished() const { return end_.is_finished(ended_); }
  void begin(const net::HttpResponse& head);
  bool take(std::string_view bytes);
  void restart();
  void take_event(const net::StreamEvent& event);
  void progressed(ChatDelta::Kind kind, std::string_view piece, std::size_t tool_call = 0);
  /// The last call of that number: its place.
  std::optional<std::size_t> call_at(std::size_t index) const;
  std::size_t begin_call(std::optional<std::size_t> index);

  Completion& completion() override { return completion_; }
  void text(std::string_view piece) override;
  void reasoning(std::string_view piece) override;
  void refusal(std::string_view piece) override;
  void tool_call(std::optional<std::size_t> index, std::string_view id, std::string_view name,
                 std::string_view arguments) override;
  void whole_arguments(std::size_t index, std::string_view arguments) override;
  bool has_tool_call(std::size_t index) const override { return call_at(index).has_value(); }
  void finish(std::string_view reason, Finish meaning) override;
  void end() override { ended_ = true; }
  [[noreturn]] void malformed(const std::string& reason) override;
  [[noreturn]] void fail(const ErrorWords& words) override;

  const Dialect& dialect_;
  const ChatRequest& question_;
  const OnDelta& on_delta_;
  const std::chrono::milliseconds progress_;
  SteadyTime give_up_ = SteadyTime::max();

  Form form_ = Form::kUnknown;
  bool is_json_ = false;  // by its Content-Type
  std::optional<net::EventStreamReader> events_{std::in_place};
  std::unique_ptr<JsonReaderLease> json_;  // made for the first event
  std::string whole_;
  Completion completion_;
  std::size_t kept_bytes_ = 0;
  std::vector<std::optional<std::size_t>> numbers_;  // of the tool calls, as the service counts
  bool ended_ = false;                               // the stream said so itself
  StreamEnd end_;
  net::HttpResponse head_;
  bool has_progressed_ = false;
  bool told_ = false;  // anything to on_delta_
  Usage lost_;
  std::optional<ErrorWords> failure_;
};

/// The completion of a whole answer. Throws InvalidResponse for what is none.
Completion read_whole(const Dialect& dialect, std::string_view body, int status);
/// Tells an answer that came whole as one that came in pieces.
void tell_whole(const Completion& completion, const OnDelta& on_delta);

}  // namespace necrocode::llm
