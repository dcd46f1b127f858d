#include "necrocode/llm/recorder.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <optional>
#include <stop_token>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/cassette_file.hpp"
#include "necrocode/llm/recorded_answer.hpp"
#include "necrocode/llm/relay.hpp"
#include "necrocode/llm/replay_delivery.hpp"
#include "necrocode/net/event_stream.hpp"
#include "necrocode/net/handler_pool.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::llm {
namespace {

// Each holds a thread, and at most one answer of limits::kModelAnswerBytes: 256 MiB together.
constexpr std::size_t kExchanges = 16;
constexpr std::size_t kExchangesWaiting = 64;
constexpr std::size_t kConditionBytes = 200;  // of one condition of a match
constexpr std::chrono::hours kAnswerTime{1};  // the client, which may leave, is the one to judge

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

// Where the client put its own key, else where the API wants it.
std::string_view key_header(ModelApi api, const net::Headers& headers) {
  for (const std::string_view name : kKeyHeaders) {
    if (headers.get(name)) return name;
  }
  return kKeyHeaders[api == ModelApi::kMessages ? 1 : 0];
}

net::Headers upstream_headers(ModelApi api, const net::Headers& given, const Secret& key) {
  net::Headers headers;
  for (const auto& [name, value] : given) {
    if (is_of_the_connection(name) || is_key_header(name) ||
        is_one_of(name, {"Accept-Encoding", "Cookie", "X-Goog-Api-Key"})) {
      continue;
    }
    headers.add(name, value);
  }
  if (key.empty()) return headers;
  const std::string_view name = key_header(api, given);
  std::string value = name == kKeyHeaders[0] ? "Bearer " : "";
  headers.set(name, value.append(key.reveal()));
  return headers;
}

net::Headers downstream_headers(const net::Headers& given) {
  net::Headers headers;
  for (const auto& [name, value] : given) {
    if (is_of_the_connection(name)) continue;
    // Our server has ids of its own; the service's operators ask for theirs.
    headers.add(iequals(name, "X-Request-Id") ? "X-Upstream-Request-Id" : name, value);
  }
  return headers;
}

// `target` of the request below the endpoint: /v1/x is the endpoint's /x, where that has a path.
std::string upstream_url(const net::Url& endpoint, const std::string& target) {
  const bool has_path = endpoint.path.size() > 1;
  if (!has_path || !target.starts_with("/v1/")) return endpoint.origin() + target;
  std::string path = endpoint.path;
  while (path.ends_with('/')) path.pop_back();
  return endpoint.origin() + path + target.substr(3);
}

net::Url checked_endpoint(const RecorderOptions& options) {
  const auto url = net::Url::parse(options.endpoint);
  if (!url || !url->user_info.empty() ||
      options.endpoint.find_first_of("?#") != std::string::npos) {
    throw ConfigError("llm.endpoint must be an http or https URL without credentials and query");
  }
  if (!options.api_key.empty() && url->scheme == "http" && !url->is_loopback()) {
    throw SecurityError("the API key is only sent over https, or to this machine");
  }
  return *url;
}

// ---- masking ----

Json masked(const Json& value, const Masker& masker) {
  if (const auto text = value.as_string()) return Json(masker.mask(*text));
  Json copy = value;
  if (value.is_array()) {
    for (Json& item : copy.items()) item = masked(item, masker);
  }
  if (value.is_object()) {
    for (auto& [name, member] : copy.members()) {
      name = masker.mask(name);
      member = masked(member, masker);
    }
  }
  return copy;
}

void mask(CompletionAnswer& answer, const Masker& masker) {
  for (std::string* text :
       {&answer.content, &answer.reasoning, &answer.finish_reason, &answer.model}) {
    *text = masker.mask(*text);
  }
  for (ToolCall& call : answer.tool_calls) {
    for (std::string* text : {&call.id, &call.name, &call.arguments}) *text = masker.mask(*text);
  }
  if (answer.usage) answer.usage = masked(*answer.usage, masker);
}

void mask(RawAnswer& answer, const Masker& masker) {
  net::Headers headers;
  for (const auto& [name, value] : answer.headers) {
    headers.add(masker.mask(name), masker.mask(value));
  }
  answer.headers = std::move(headers);
  // Text by text, so that what was JSON stays JSON.
  const auto body = Json::try_parse(answer.body);
  answer.body = body ? masked(*body, masker).dump() : masker.mask(answer.body);
}

void mask(DrillAnswer& answer, const Masker& masker) {
  if (answer.answer) mask(*answer.answer, masker);
}

}  // namespace

void join_texts(const Json& value, const std::string& name,
                std::map<std::string, std::string>& texts) {
  if (const auto text = value.as_string()) texts[name] += *text;
  for (const Json& item : value.items()) join_texts(item, name, texts);
  for (const auto& [inner, member] : value.members()) join_texts(member, inner, texts);
}

// Whether a stream that is kept as it came has a secret in pieces, which masking cannot see.
bool holds_secret_in_pieces(const RawAnswer& answer, const Masker& masker) {
  std::map<std::string, std::string> texts;  // of all events, by the member that holds them
  net::EventStreamReader reader;
  try {
    reader.take(answer.body, [&texts](const net::StreamEvent& event) {
      if (const auto data = Json::try_parse(event.data)) join_texts(*data, "", texts);
    });
  } catch (const InvalidResponse&) {
    return true;  // too large to be looked at
  }
  return std::any_of(texts.begin(), texts.end(),
                     [&masker](const auto& text) { return masker.contains_secret(text.second); });
}

CassetteEntry masked(CassetteEntry entry, const Masker& masker) {
  entry.match.model = masker.mask(entry.match.model);
  for (auto* conditions : {&entry.match.contains, &entry.match.not_contains}) {
    for (std::string& text : *conditions) text = masker.mask(text);
  }
  std::visit([&](auto& answer) { mask(answer, masker); }, entry.answer);
  return entry;
}

CassetteMatch recorded_match(const Question& question, const Masker& masker) {
  CassetteMatch match;
  if (!masker.contains_secret(question.model)) match.model = question.model;
  const std::string safe = masker.mask(question.last);
  const bool usable = safe == question.last && safe.find('\0') == std::string::npos;
  if (safe.empty()) return match;
  if (usable && safe.size() <= kConditionBytes) {
    match.contains = {safe};
    return match;
  }
  std::vector<std::string> lines;
  for (const std::string_view line : split(safe, '\n')) {
    std::string_view text = trim(line);
    // Within what masking left as it was; a mask is no part of the question.
    if (text.empty() || text.find("***") != std::string_view::npos ||
        text.find('\0') != std::string_view::npos) {
      continue;
    }
    while (text.size() > kConditionBytes || !is_utf8(text)) {
      text = text.substr(0, std::min(text.size() - 1, kConditionBytes));
    }
    lines.emplace_back(text);
  }
  if (lines.empty()) return match;
  const auto longest = std::max_element(
      lines.begin(), lines.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); });
  for (const std::string& line : {lines.front(), *longest, lines.back()}) {
    auto& taken = match.contains;
    if (std::find(taken.begin(), taken.end(), line) == taken.end()) taken.push_back(line);
  }
  return match;
}

// ---- one exchange ----

namespace {

// Shared by the thread that asks the service and the connection that waits.
struct Exchange {
  ModelApi api = ModelApi::kChat;
  bool recorded = false;  // a POST
  net::HttpRequest upstream;
  Question question;
  std::stop_source stop;  // the client is gone, or the recorder stops
  Relay relay;
  std::shared_ptr<net::Parked> parked;

  void abandon() {
    stop.request_stop();
    relay.abandon();
  }
};

// What the service has answered so far, as far as it is kept.
struct Observed {
  net::HttpResponse answer;
  bool begun = false;                          // a 2xx, which goes on as it comes
  bool too_large = false;                      // to be recorded
  std::optional<net::TransportError> failure;  // why no whole answer came
};

// Goes on as the relay gets it; when the connection lets go of it, the exchange ends.
net::Response relayed(const std::shared_ptr<Exchange>& exchange, const net::HttpResponse& head) {
  net::Response response;
  response.status = head.status;
  response.headers = downstream_headers(head.headers);
  const std::shared_ptr<Exchange> held(exchange.get(),
                                       [exchange](Exchange* ended) { ended->abandon(); });
  auto feed = std::make_shared<net::FeedBody>();
  feed->start = [held](std::function<void()> news) { held->relay.listen(std::move(news)); };
  feed->next = [held] { return held->relay.next(); };
  response.body = std::move(feed);
  return response;
}

}  // namespace

struct Recorder::State {
  explicit State(RecorderOptions given)
      : options(std::move(given)),
        endpoint(checked_endpoint(options)),
        file(options.out),
        server(options.server),
        pool(kExchanges, kExchangesWaiting) {}

  const RecorderOptions options;
  const net::Url endpoint;
  std::mutex mutex;
  CassetteFile file;        // guarded by mutex
  Recorder::Counts counts;  // guarded by mutex
  std::stop_source stopping;
  net::HttpServer server;
  net::HandlerPool pool;  // last: its threads use the above

  net::Response take(ModelApi api, const net::Request& request);
  void run(const std::shared_ptr<Exchange>& exchange);
  Observed ask(const std::shared_ptr<Exchange>& exchange, const CallContext& context);
  void end_broken(Exchange& exchange, const Observed& seen);
  void record(const Exchange& exchange, const Observed& seen);
  std::string append(const CassetteEntry& entry);
};

net::Response Recorder::State::take(ModelApi api, const net::Request& request) {
  if (request.headers.get("Origin")) {
    return refuse(api, {403, "the recorder answers programs, not web pages", "replay_origin"});
  }
  const auto exchange = std::make_shared<Exchange>();
  exchange->api = api;
  exchange->recorded = request.method == "POST";
  if (exchange->recorded) {
    std::string defect;  // of no account here: the service judges
    exchange->question = read_question(api, Json::try_parse(request.body).value_or(Json()), defect);
  }
  net::HttpRequest& upstream = exchange->upstream;
  upstream.method = request.method;
  upstream.url = upstream_url(endpoint, request.target);
  upstream.headers = upstream_headers(api, request.headers, options.api_key);
  upstream.body = request.body;
  upstream.timeouts.total = std::chrono::milliseconds(0);
  net::ParkRequest park;
  park.timeout = kAnswerTime;
  park.start = [this, exchange](std::shared_ptr<net::Parked> parked) {
    exchange->parked = std::move(parked);
    if (pool.try_submit([this, exchange] { run(exchange); })) return;
    net::Response full =
        refuse(exchange->api, {503, "the recorder has too many exchanges under way"});
    full.headers.set("Retry-After", "1");
    exchange->parked->complete(std::move(full));
  };
  park.on_timeout = [exchange] {
    exchange->abandon();
    return refuse(exchange->api, {504, "the model service did not answer", "recorder_timeout"});
  };
  park.on_gone = [exchange] { exchange->abandon(); };
  return net::Response::park(std::move(park));
}

// On a pool's thread, from the question to the end of its answer.
void Recorder::State::run(const std::shared_ptr<Exchange>& exchange) {
  try {
    const std::stop_callback on_stop(stopping.get_token(), [&] { exchange->abandon(); });
    CallContext context;
    context.stop = exchange->stop.get_token();
    Observed seen = ask(exchange, context);
    if (exchange->recorded) record(*exchange, seen);
    if (seen.failure) return end_broken(*exchange, seen);
    if (seen.begun) return exchange->relay.finish();
    net::Response response;
    response.status = seen.answer.status;
    response.headers = downstream_headers(seen.answer.headers);
    response.body = std::move(seen.answer.body);
    exchange->parked->complete(std::move(response));
  } catch (const std::exception& error) {
    log::error("an exchange could not be recorded", {{"error", error.what()}});
    exchange->relay.fail();
    exchange->parked->complete(refuse(exchange->api, {500, "the recorder failed"}));
  }
}

Observed Recorder::State::ask(const std::shared_ptr<Exchange>& exchange,
                              const CallContext& context) {
  Observed seen;
  std::string body;
  net::HttpRequest request = exchange->upstream;
  request.on_head = [&](const net::HttpResponse& head) {
    seen.begun = true;
    seen.answer = head;
    if (!exchange->parked->complete(relayed(exchange, head))) exchange->abandon();
  };
  request.on_body = [&](std::string_view piece) {
    seen.too_large = seen.too_large || body.size() + piece.size() > limits::kModelAnswerBytes;
    if (!seen.too_large) body.append(piece);
    return exchange->relay.push(piece);
  };
  try {
    net::HttpResponse answer = options.http->send(request, context);
    if (!seen.begun) seen.answer = std::move(answer);
  } catch (const net::TransportError& error) {
    seen.failure = error;
  }
  if (seen.begun) seen.answer.body = std::move(body);
  return seen;
}

// No whole answer came: the client sees its connection closed in the middle, or a 502.
void Recorder::State::end_broken(Exchange& exchange, const Observed& seen) {
  if (seen.begun) return exchange.relay.fail();
  const std::string why = options.masker->mask(seen.failure->summary());
  exchange.parked->complete(
      refuse(exchange.api, {502, "the model service could not be asked: " + why}));
}

namespace {

// What the client has seen, which is what it shall see again; or the reason why that is nothing.
std::variant<RecordedAnswer, std::string> what_to_record(const Exchange& exchange,
                                                         const Observed& seen) {
  if (seen.too_large) {
    return "it is larger than " + std::to_string(limits::kModelAnswerBytes) + " bytes";
  }
  if (seen.failure && !seen.begun) return "none came";
  if (seen.failure && !exchange.stop.stop_requested()) {
    DrillAnswer cut;
    cut.drill = Drill::kCut;
    return cut;
  }
  RecordedAnswer answer = read_answer(exchange.api, seen.answer);
  // Many close the connection at [DONE], before the stream itself has ended.
  if (seen.failure && !std::holds_alternative<CompletionAnswer>(answer)) {
    return "the client did not wait for it";
  }
  return answer;
}

}  // namespace

void Recorder::State::record(const Exchange& exchange, const Observed& seen) {
  auto found = what_to_record(exchange, seen);
  std::string reason;
  if (auto* answer = std::get_if<RecordedAnswer>(&found)) {
    CassetteEntry entry;
    entry.match = recorded_match(exchange.question, *options.masker);
    entry.answer = std::move(*answer);
    // The request's model, which an answer has when it names none, is not told twice.
    auto* whole = std::get_if<CompletionAnswer>(&entry.answer);
    if (whole != nullptr && whole->model == exchange.question.model) whole->model.clear();
    const auto* raw = std::get_if<RawAnswer>(&entry.answer);
    reason = raw != nullptr && holds_secret_in_pieces(*raw, *options.masker)
                 ? "a secret is spread over it"
                 : append(masked(std::move(entry), *options.masker));
  } else {
    reason = std::get<std::string>(found);
  }
  if (!reason.empty()) log::warn("an answer is not in the cassette", {{"reason", reason}});
  const std::lock_guard lock(mutex);
  ++(reason.empty() ? counts.recorded : counts.left_out);
}

// Why it was not; empty when it was.
std::string Recorder::State::append(const CassetteEntry& entry) {
  // A last look over the whole: better no entry than one with a secret.
  if (options.masker->contains_secret(to_json(entry).dump())) return "a secret is spread over it";
  try {
    const std::lock_guard lock(mutex);
    return file.append(entry) ? "" : "the cassette has no room or no words for it";
  } catch (const StorageError& error) {
    return error.what();
  }
}

Recorder::Recorder(RecorderOptions options) : state_(std::make_unique<State>(std::move(options))) {
  State& state = *state_;
  net::RouteOptions route_options;
  route_options.body_bytes_max = limits::kCassetteBytes;  // a prompt may be long
  const auto passes_on = [&state](ModelApi api) {
    return [&state, api](const net::Request& request) { return state.take(api, request); };
  };
  for (const ModelRoute& route : model_routes()) {
    state.server.route("POST", std::string(route.pattern), passes_on(route.api), route_options);
  }
  for (const char* path : {"/v1/models", "/v1/models/{model}"}) {
    state.server.route("GET", path, passes_on(ModelApi::kChat));
  }
}

Recorder::~Recorder() {
  stop();
}
void Recorder::start() {
  state_->server.start();
}
void Recorder::stop() {
  state_->server.stop();
  state_->stopping.request_stop();
  state_->pool.stop();
}
std::string Recorder::url() const {
  return state_->server.url() + "/v1";
}
Recorder::Counts Recorder::counts() const {
  const std::lock_guard lock(state_->mutex);
  return state_->counts;
}

}  // namespace necrocode::llm
