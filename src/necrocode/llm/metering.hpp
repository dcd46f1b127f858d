// What passes between a program and a model service, as far as it must be counted, capped and
// classed: read by the dialects, as the bytes come, in bounded memory. No sockets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "necrocode/llm/model.hpp"
#include "necrocode/llm/replay_dialects.hpp"
#include "necrocode/net/http_client.hpp"

namespace necrocode::llm {

/// How an exchange ended, for whoever must decide what comes next.
enum class ExchangeClass {
  kOk,
  kAuth,         ///< 401, 403
  kQuota,        ///< quota or billing exhausted
  kCap,          ///< one of our caps, or no known price under one: never forwarded
  kRate,         ///< 429, or held back by us until a service's hint has passed
  kContext,      ///< the prompt is too long for the model
  kRequest,      ///< another 4xx: this request is never answered
  kProtocol,     ///< an answer that is none: HTML with 200, no JSON
  kUnavailable,  ///< 5xx, no connection, reset, cut off, silence
  kGone,         ///< the program did not wait for the answer
};
std::string_view to_string(ExchangeClass how);  ///< "ok", "auth", "quota", …

struct Verdict {
  ExchangeClass how = ExchangeClass::kOk;
  std::string detail;  ///< why it failed, in the service's own words: neither masked nor bounded
};
/// Of an answer that is not 2xx.
Verdict judge(int status, std::string_view body);
/// Of one that did not come.
Verdict judge(const net::TransportError& failure);

// ---- requests ----

/// What of a request is counted.
struct MeteredRequest {
  std::string model;
  /// Of the answer, by the API's own name for it; by the largest, where it has two.
  std::optional<std::int64_t> token_limit;
  std::int64_t choices = 1;  ///< answers asked for: Chat Completions' `n`
  bool stream = false;
  bool asks_usage = false;  ///< of a stream: it comes with the stream, or was asked for
  /// It names what the model will read and what is not in it: files, images on the web, a
  /// conversation kept at the service.
  bool refers_outside = false;
  bool caches_for_an_hour = false;  ///< Anthropic's, which is dearer than for five minutes
  /// What it wants that has no known price: a tier that is dearer, or an answer that comes later,
  /// past us. Else empty.
  std::string unpriced;
  /// Why it cannot be counted: no JSON object, no model, a member of the above that stands twice,
  /// of which a service may take the other one. Else empty.
  std::string defect;
};
/// `deployment`: the model that the address names; empty: none.
MeteredRequest read_metered_request(ModelApi api, std::string_view body,
                                    std::string_view deployment = {});

/// The body of a Chat Completions request, asking for the usage of its stream; all else of it as
/// it was, byte for byte. `body` was read before, and has no defect.
std::string with_usage_asked(std::string_view body);

/// Takes the chunk that only tells usage, which the client did not ask for, out of an event stream.
/// All other bytes go on unchanged, each event when it is whole or longer than such a chunk is. Not
/// thread-safe.
class UsageChunkFilter {
 public:
  /// What can go on. Valid until the next call.
  std::string_view take(std::string_view bytes);
  /// The rest, at the stream's end.
  std::string_view finish();

 private:
  void end_event();

  std::string event_;  // not decided yet
  std::string out_;
  bool line_is_empty_ = true;  // so far: the one that is read
  bool after_cr_ = false;
  bool passing_ = false;       // the event is too long to be one
  bool dropped_last_ = false;  // the event that ended last: a LF after its CR is its own
};

// ---- answers ----

/// Reads a 2xx answer as it passes. Texts are counted, not kept. Not thread-safe.
class AnswerMeter {
 public:
  explicit AnswerMeter(ModelApi api);
  ~AnswerMeter();
  AnswerMeter(const AnswerMeter&) = delete;
  AnswerMeter& operator=(const AnswerMeter&) = delete;

  void begin(const net::HttpResponse& head);
  void take(std::string_view bytes);
  /// The service says that nothing follows: all is known before the stream itself ends.
  bool ended() const;

  /// Once all has come (`whole`), or no more will. kOk, or why it is no whole answer.
  Verdict verdict(bool whole);
  /// By the service's own counts; what it left out or did not come to tell is estimated, from
  /// `prompt_estimate` and the texts that came, and marked so. After verdict().
  Usage usage(std::int64_t prompt_estimate) const;
  /// Of usage().cache_write_tokens: those that are kept for an hour.
  std::int64_t hour_cache_tokens() const;
  /// The service itself said, in the middle of a stream, that it failed; or who gave the whole
  /// answer is no model service at all (a web page).
  bool bills_nothing_more() const;
  /// That answered; empty: it did not say.
  const std::string& model() const;

 private:
  class Reader;
  std::unique_ptr<Reader> reader_;
};

}  // namespace necrocode::llm
