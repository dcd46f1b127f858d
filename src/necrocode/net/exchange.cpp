#include "necrocode/net/exchange.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "necrocode/base/ids.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/net/http_client.hpp"
#include "necrocode/net/request_body.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::net {
namespace {

Outcome to_outcome(Response response, const Exchange& exchange, bool may_park,
                   const std::function<void()>& wake) {
  auto* park = std::get_if<std::shared_ptr<ParkRequest>>(&response.body);
  if (park == nullptr) return {std::move(response), nullptr, false};
  if (!may_park) throw std::logic_error("an answer that ends a wait was parked again");
  auto parked = std::make_shared<ParkedAnswer>(std::move(*park), wake);
  try {
    if (const auto start = std::exchange(parked->request().start, nullptr)) start(parked);
  } catch (const std::exception& error) {
    // When it was completed before the throw, that answer stands.
    if (parked->close()) {
      parked->forget();
      return {problem_for(error, exchange.request), nullptr, false};
    }
  }
  return {Response{}, std::move(parked), false};
}

// Framing is the server's; a handler that says it too would say it twice.
bool is_servers_own(std::string_view name) {
  for (const std::string_view own : {"Content-Length", "Transfer-Encoding", "Connection",
                                     "Keep-Alive", "Date", "X-Request-Id"}) {
    if (iequals(name, own)) return true;
  }
  return false;
}

bool has_sendable_head(const Response& response) {
  if (response.status < 200 || response.status > 599) return false;
  for (const auto& [name, value] : response.headers) {
    if (!is_valid_header(name, value)) return false;
  }
  return true;
}

}  // namespace

std::optional<Refusal> prepare(Exchange& exchange, const HttpRouter& router, std::string& allow) {
  Request& request = exchange.request;
  request.method = exchange.head.method;
  request.target = exchange.head.target;
  request.headers = std::move(exchange.head.headers);
  const std::string id = request.headers.get_or("X-Request-Id", "");
  request.request_id = is_sane_request_id(id) ? id : uuid7();

  // A refused target is told of as it came.
  request.path = request.target.substr(0, request.target.find('?'));
  auto parsed = parse_target(request.target);
  if (auto* refusal = std::get_if<Refusal>(&parsed)) return std::move(*refusal);
  auto& target = std::get<Target>(parsed);
  request.path = std::move(target.path);
  request.query = std::move(target.query);
  HttpRouter::Match match = router.match(request.method, target.segments);
  if (match.route == nullptr) {
    allow = std::move(match.allow);
    if (allow.empty()) return Refusal{404, router.unknown_path};
    return Refusal{405, "the path does not take this method"};
  }
  exchange.route = match.route;
  request.route = match.route->pattern;
  request.params = std::move(match.params);
  if (exchange.head.content_length.value_or(0) > match.route->options.body_bytes_max) {
    return body_too_large(match.route->options.body_bytes_max);
  }
  return std::nullopt;
}

Outcome run_handler(const std::function<Response()>& make, const Exchange& exchange, bool may_park,
                    const std::function<void()>& wake) {
  try {
    return to_outcome(make(), exchange, may_park, wake);
  } catch (const std::exception& error) {
    return {problem_for(error, exchange.request), nullptr, false};
  } catch (...) {
    return {problem_for(std::runtime_error("not an exception"), exchange.request), nullptr, false};
  }
}

Outcome run_producer(const BodyProducer& producer) {
  Outcome outcome;
  outcome.broken = true;
  run_guarded([&] {
    outcome.response.body = producer();
    outcome.broken = false;
  });
  return outcome;
}

Outcome run_feed(const FeedBody& feed, const std::function<void()>& start) {
  Outcome outcome;
  outcome.broken = true;
  run_guarded([&] {
    if (start) start();
    outcome.piece = feed.next();
    outcome.broken = false;
  });
  return outcome;
}

void run_guarded(const std::function<void()>& call) {
  try {
    if (call) call();
  } catch (const TransportError& error) {
    // An answer that is passed on, and broke off at its source.
    log::debug("an answer is cut off", {{"error", error.what()}});
  } catch (const std::exception& error) {
    log::error("a handler's callback failed", {{"error", error.what()}});
  }
}

Response unavailable(std::string_view detail, std::string_view instance) {
  Response response = problem(503, detail, instance);
  response.headers.set("Retry-After", "1");
  return response;
}

bool is_sane_request_id(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), [](char c) {
    return is_ascii_alnum(c) || c == '.' || c == '_' || c == '-';
  });
}

bool may_have_body(int status) {
  return status >= 200 && status != 204 && status != 304;
}

Response sendable(Response response, const Request& request) {
  std::string_view defect;
  if (std::holds_alternative<std::shared_ptr<ParkRequest>>(response.body)) {
    defect = "an answer that ends a wait was parked again";
  } else if (!has_sendable_head(response)) {
    defect = "the handler's answer has a status or a header that cannot be sent";
  }
  if (defect.empty()) return response;
  return problem_for(std::logic_error(std::string(defect)), request);
}

std::string response_head(const Response& response, const RequestHead& request_head,
                          const Request& request, bool keep, std::string_view date) {
  std::string head = "HTTP/1.1 " + std::to_string(response.status) + " ";
  head.append(reason_phrase(response.status)).append("\r\n");
  const auto add = [&head](std::string_view name, std::string_view value) {
    head.append(name).append(": ").append(value).append("\r\n");
  };
  add("Date", date);
  for (const auto& [name, value] : response.headers) {
    if (!is_servers_own(name)) add(name, value);
  }
  if (may_have_body(response.status)) {
    if (const auto* text = std::get_if<std::string>(&response.body)) {
      add("Content-Length", std::to_string(text->size()));
    } else if (const auto* file = std::get_if<std::shared_ptr<FileBody>>(&response.body)) {
      add("Content-Length", std::to_string((*file)->size));
    } else if (!request_head.http_1_0) {
      add("Transfer-Encoding", "chunked");
    }
  }
  add("X-Request-Id", request.request_id);
  if (!keep) add("Connection", "close");
  if (keep && request_head.http_1_0) add("Connection", "keep-alive");
  return head.append("\r\n");
}

}  // namespace necrocode::net
