#include "necrocode/llm/passage.hpp"

#include <algorithm>
#include <array>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/replay_delivery.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::llm {
namespace {

constexpr std::chrono::hours kAnswerTime{24};  // the client, which may leave, is the one to judge
constexpr std::array<std::string_view, 3> kKeyHeaders = {"Authorization", "x-api-key", "api-key"};

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::any_of(names.begin(), names.end(),
                     [&](std::string_view other) { return iequals(name, other); });
}

// RFC 9110 section 7.6.1, and what both of our sides frame and address for themselves.
bool is_of_the_connection(std::string_view name) {
  return is_one_of(name, {"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
                          "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
                          "Content-Length", "Expect", "Host"});
}

bool is_key_header(std::string_view name) {
  return is_one_of(name, {kKeyHeaders[0], kKeyHeaders[1], kKeyHeaders[2]});
}

// Where the service wants it, if it takes it nowhere else; else where the client put its own.
std::string_view key_header(ModelApi api, const net::Headers& headers, const net::Url& endpoint) {
  if (endpoint.host.ends_with("anthropic.com")) return kKeyHeaders[1];
  for (const std::string_view name : kKeyHeaders) {
    if (headers.get(name)) return name;
  }
  return kKeyHeaders[api == ModelApi::kMessages ? 1 : 0];
}

net::Headers upstream_headers(ModelApi api, const net::Headers& given, const Upstream& upstream) {
  net::Headers headers;
  for (const auto& [name, value] : given) {
    if (is_of_the_connection(name) || is_key_header(name) ||
        is_one_of(name, {"Accept-Encoding", "Cookie", "X-Goog-Api-Key"})) {
      continue;
    }
    headers.add(name, value);
  }
  if (upstream.api_key.empty()) return headers;
  const std::string_view name = key_header(api, given, upstream.endpoint);
  std::string value = name == kKeyHeaders[0] ? "Bearer " : "";
  headers.set(name, value.append(upstream.api_key.reveal()));
  return headers;
}

// Anthropic's endpoints are given without the version, as its own clients take them.
std::string upstream_url(ModelApi api, const net::Url& endpoint, std::string_view target) {
  constexpr std::string_view kVersion = "/v1";
  std::string path = endpoint.path;
  while (path.ends_with('/')) path.pop_back();
  if (target.starts_with("/openai/")) {  // Azure's: where the endpoint's own begins, or its version
    path += '/';
    path.erase(std::min(path.find("/openai/"), path.size() - 1));
    if (path.ends_with(kVersion)) path.erase(path.size() - kVersion.size());
  }
  if (path.empty() || target.starts_with("/openai/")) {
    return endpoint.origin() + path + std::string(target);
  }
  while (target.starts_with("/v1/")) target.remove_prefix(kVersion.size());
  if (api == ModelApi::kMessages && !path.ends_with(kVersion)) path += kVersion;
  return endpoint.origin() + path + std::string(target);
}

// The service closed a kept-alive connection just when we used it.
bool is_stale_connection(const net::TransportError& error) {
  return error.reused_connection() && error.failure() == net::TransportFailure::kReset &&
         error.delivery() != net::Delivery::kResponseStarted;
}

}  // namespace

Upstream make_upstream(const std::string& endpoint, const Secret& api_key, std::string_view name) {
  const auto url = net::Url::parse(endpoint);
  if (!url || !url->user_info.empty() || endpoint.find_first_of("?#") != std::string::npos) {
    throw ConfigError(std::string(name) +
                      " must be an http or https URL without credentials and query");
  }
  if (!api_key.empty() && url->scheme == "http" && !url->is_loopback()) {
    throw SecurityError("the API key is only sent over https, or to this machine: " +
                        std::string(name) + " is neither");
  }
  return {*url, api_key.copy()};
}

void each_key(const net::Headers& headers, const std::function<void(std::string_view)>& take) {
  constexpr std::string_view kBearer = "Bearer ";
  for (const std::string_view name : kKeyHeaders) {
    std::string_view key = headers.get(name).value_or(std::string_view());
    if (key.size() > kBearer.size() && iequals(key.substr(0, kBearer.size()), kBearer)) {
      key.remove_prefix(kBearer.size());
    }
    if (!trim(key).empty()) take(trim(key));
  }
}

net::HttpRequest upstream_request(ModelApi api, const net::Request& request,
                                  std::string_view target, const Upstream& upstream) {
  net::HttpRequest sent;
  sent.method = request.method;
  sent.url = upstream_url(api, upstream.endpoint, target);
  sent.headers = upstream_headers(api, request.headers, upstream);
  sent.body = request.body;
  sent.timeouts.total = std::chrono::milliseconds(0);
  return sent;
}

// ---- one exchange ----

Passage::Passage(ModelApi of, std::shared_ptr<const HiddenKeys> hidden)
    : api(of),
      hidden_(hidden ? std::move(hidden)
                     : std::make_shared<const HiddenKeys>(std::vector<const Secret*>())),
      filter_(hidden_) {}

net::Headers Passage::downstream_headers(const net::Headers& given) const {
  net::Headers headers;
  for (const auto& [name, value] : given) {
    if (is_of_the_connection(name)) continue;
    // Our server has ids of its own; the service's operators ask for theirs.
    const bool is_id = iequals(name, "X-Request-Id");
    headers.add(is_id ? "X-Upstream-Request-Id" : hidden_->hide(name), hidden_->hide(value));
  }
  return headers;
}

void Passage::abandon() {
  stop_.request_stop();
  relay_.abandon();
}

// Goes on as the relay gets it; when the connection lets go of it, the exchange ends.
bool Passage::begin(const net::HttpResponse& head) {
  net::Response response;
  response.status = head.status;
  response.headers = downstream_headers(head.headers);
  const std::shared_ptr<Passage> held(this,
                                      [self = self_.lock()](Passage* ended) { ended->abandon(); });
  auto feed = std::make_shared<net::FeedBody>();
  feed->start = [held](std::function<void()> news) { held->relay_.listen(std::move(news)); };
  feed->next = [held] { return held->relay_.next(); };
  response.body = std::move(feed);
  return parked_->complete(std::move(response));
}

Passed Passage::send(net::HttpClient& http, net::HttpRequest request, const Look& look,
                     const std::function<void(const net::HttpResponse& head)>& on_head) {
  Passed passed;
  request.on_head = [&](const net::HttpResponse& head) {
    passed.begun = true;
    passed.answer = head;
    if (on_head) on_head(head);
    if (!begin(head)) abandon();
  };
  request.on_body = [&](std::string_view piece) { return push(look(piece)); };
  CallContext context;
  context.stop = stop_token();
  for (;;) {
    try {
      net::HttpResponse answer = http.send(request, context);
      if (!passed.begun) passed.answer = std::move(answer);
      return passed;
    } catch (const net::TransportError& error) {
      if (is_stale_connection(error) && !std::exchange(request.fresh_connection, true)) continue;
      passed.failure = error;
      return passed;
    }
  }
}

bool Passage::push(std::string_view bytes) {
  const std::string shown = filter_.take(bytes);
  return shown.empty() ? !abandoned() : relay_.push(shown);
}

void Passage::end(Passed passed, const std::function<net::Response()>& instead) {
  if (passed.begun) {
    if (const std::string rest = filter_.finish(); !rest.empty()) relay_.push(rest);
    return passed.failure ? relay_.fail() : relay_.finish();
  }
  if (passed.failure) return answer(instead());
  net::Response response;
  response.status = passed.answer.status;
  response.headers = downstream_headers(passed.answer.headers);
  response.body = hidden_->hide(passed.answer.body);
  answer(std::move(response));
}

void Passage::answer(net::Response response) {
  parked_->complete(std::move(response));
}

// ---- their threads ----

Passages::Passages(std::string name, std::size_t exchanges, std::size_t waiting)
    : name_(std::move(name)), pool_(exchanges, waiting) {}

net::Response Passages::begin(std::shared_ptr<Passage> passage, Run run) {
  passage->self_ = passage;
  net::ParkRequest park;
  park.timeout = kAnswerTime;
  park.start = [this, passage, run = std::move(run)](std::shared_ptr<net::Parked> parked) {
    passage->parked_ = std::move(parked);
    if (pool_.try_submit([this, passage, run] { go(passage, run); })) return;
    net::Response full = refuse(passage->api, {503, name_ + " has too many exchanges under way"});
    full.headers.set("Retry-After", "1");
    passage->answer(std::move(full));
  };
  park.on_timeout = [this, passage] {
    passage->abandon();
    return refuse(passage->api, {504, name_ + " got no answer of the model service"});
  };
  park.on_gone = [passage] { passage->abandon(); };
  return net::Response::park(std::move(park));
}

void Passages::go(const std::shared_ptr<Passage>& passage, const Run& run) {
  const std::stop_callback on_stop(stopping_.get_token(), [&] { passage->abandon(); });
  try {
    run(*passage);
  } catch (const std::exception& error) {
    log::error("an exchange with a model service failed", {{"error", error.what()}});
    passage->relay_.fail();
    passage->answer(refuse(passage->api, {500, name_ + " failed"}));
  }
}

void Passages::stop() {
  stopping_.request_stop();
  pool_.stop();
}

}  // namespace necrocode::llm
