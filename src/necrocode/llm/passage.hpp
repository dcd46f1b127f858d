// Passage: a request's way to a model service, and its answer's way back to the client as it comes.
// What the recorder and the metering proxy have in common: they look at what passes, each in its
// own way.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "necrocode/base/call_context.hpp"
#include "necrocode/base/secret.hpp"
#include "necrocode/llm/key_filter.hpp"
#include "necrocode/llm/relay.hpp"
#include "necrocode/llm/replay_dialects.hpp"
#include "necrocode/net/handler_pool.hpp"
#include "necrocode/net/http_client.hpp"
#include "necrocode/net/http_server.hpp"

namespace necrocode::llm {

/// A model service as requests are passed on to it.
struct Upstream {
  net::Url endpoint;
  Secret api_key;  ///< empty: none is added, and the client's own goes no further
};
/// Throws ConfigError for an endpoint that is none, SecurityError for a key that would go over
/// plain http to another machine. `name` says in messages where the endpoint was given.
Upstream make_upstream(const std::string& endpoint, const Secret& api_key, std::string_view name);

/// What the usual headers say is the client's key; a program may fill more than one of them.
void each_key(const net::Headers& headers, const std::function<void(std::string_view)>& take);

/// `request` as it goes to `upstream`, `target` of it below the endpoint: its path without /v1, or,
/// when it begins with /openai/ (Azure), in place of the endpoint's own /openai/… or /v1. Left out
/// are what belongs to a connection, the client's key, and Accept-Encoding, so that answers come as
/// text.
net::HttpRequest upstream_request(ModelApi api, const net::Request& request,
                                  std::string_view target, const Upstream& upstream);

/// How sending ended.
struct Passed {
  net::HttpResponse answer;  ///< without the body of a 2xx, which went on as it came
  bool begun = false;        ///< a 2xx
  std::optional<net::TransportError> failure;  ///< why no whole answer came
};

/// One exchange. Its functions are called on the exchange's thread, but for abandon().
class Passage {
 public:
  /// What of a piece of a 2xx answer goes on to the client.
  using Look = std::function<std::string_view(std::string_view piece)>;

  /// `hidden`: keys that the service may have told, and the client must not learn; null: none.
  explicit Passage(ModelApi of, std::shared_ptr<const HiddenKeys> hidden = nullptr);
  const ModelApi api;

  /// The client is gone, or the server stops.
  void abandon();
  bool abandoned() const { return stop_.stop_requested(); }
  std::stop_token stop_token() const { return stop_.get_token(); }

  /// Sends, and passes a 2xx on: head, then what `look` leaves of each piece. Any other answer
  /// comes back, and nothing has gone to the client. A connection that turns out to be stale is
  /// replaced once.
  Passed send(net::HttpClient& http, net::HttpRequest request, const Look& look,
              const std::function<void(const net::HttpResponse& head)>& on_head = {});
  /// More of an answer that has begun. False when nobody takes it any more.
  bool push(std::string_view bytes);
  /// The client gets the end of what was sent: the answer itself when none has begun, a closed
  /// connection for one that broke off, or `instead` for one that did not come.
  void end(Passed passed, const std::function<net::Response()>& instead);
  /// The client gets this, when nothing has gone to it.
  void answer(net::Response response);

 private:
  friend class Passages;
  bool begin(const net::HttpResponse& head);
  net::Headers downstream_headers(const net::Headers& given) const;

  std::weak_ptr<Passage> self_;
  std::stop_source stop_;
  Relay relay_;
  const std::shared_ptr<const HiddenKeys> hidden_;
  KeyFilter filter_;
  std::shared_ptr<net::Parked> parked_;
};

/// The threads on which exchanges run. Thread-safe.
class Passages {
 public:
  using Run = std::function<void(Passage&)>;
  /// `name` begins the messages that clients get: "the recorder".
  Passages(std::string name, std::size_t exchanges, std::size_t waiting);

  /// Has `run` answer the client, on a thread of its own. What it throws is logged, and told as a
  /// 500; where no thread is free, the client gets a 503.
  net::Response begin(std::shared_ptr<Passage> passage, Run run);
  void stop();  ///< Ends the exchanges under way. Safe to call twice.

 private:
  void go(const std::shared_ptr<Passage>& passage, const Run& run);

  const std::string name_;
  std::stop_source stopping_;
  net::HandlerPool pool_;  // last: its threads use the above
};

}  // namespace necrocode::llm
