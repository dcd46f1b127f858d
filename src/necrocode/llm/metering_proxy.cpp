#include "necrocode/llm/metering_proxy.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <set>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/metered_exchange.hpp"
#include "necrocode/llm/passage.hpp"
#include "necrocode/llm/replay_delivery.hpp"
#include "necrocode/llm/run_meter.hpp"

namespace necrocode::llm {
namespace {

bool is_provider_name(std::string_view name) {
  const auto is_plain = [](char c) { return is_ascii_digit(c) || (c >= 'a' && c <= 'z'); };
  return !name.empty() && is_plain(name.front()) &&
         std::all_of(name.begin(), name.end(),
                     [&](char c) { return is_plain(c) || c == '-' || c == '_'; });
}

std::map<std::string, Upstream, std::less<>> read_providers(
    const std::vector<ModelProvider>& providers) {
  std::map<std::string, Upstream, std::less<>> read;
  for (const ModelProvider& provider : providers) {
    if (!is_provider_name(provider.name)) {
      throw ConfigError("a provider's name must be of a-z, 0-9, - and _, not \"" +
                        printable(provider.name) + "\"");
    }
    Upstream upstream = make_upstream(provider.endpoint, provider.api_key,
                                      "the endpoint of provider \"" + provider.name + "\"");
    if (!read.emplace(provider.name, std::move(upstream)).second) {
      throw ConfigError("the provider \"" + provider.name + "\" is named twice");
    }
  }
  if (read.empty()) throw ConfigError("no provider is named");
  return read;
}

std::shared_ptr<const HiddenKeys> keys_of(const std::vector<ModelProvider>& providers) {
  std::vector<const Secret*> keys;
  for (const ModelProvider& provider : providers) keys.push_back(&provider.api_key);
  return std::make_shared<const HiddenKeys>(keys);
}

bool is_encoded(const net::Headers& headers) {
  return std::any_of(headers.begin(), headers.end(), [](const auto& header) {
    return iequals(header.first, "Content-Encoding") && !iequals(trim(header.second), "identity");
  });
}

// Of a client that takes us for a proxy of its own, and names the host, too.
std::string_view origin_form(std::string_view target) {
  if (target.starts_with('/')) return target;
  const std::size_t host = target.find("://");
  const std::size_t path = host == std::string_view::npos ? host : target.find('/', host + 3);
  return path == std::string_view::npos ? "/" : target.substr(path);
}

net::HttpServerOptions with_unknown_path(net::HttpServerOptions options) {
  options.unknown_path =
      "no such path; there are POST /v1/chat/completions, /v1/responses, /v1/messages and "
      "/v1/messages/count_tokens, and GET /v1/models, each also below /PROVIDER";
  return options;
}

}  // namespace

struct MeteringProxy::State {
  explicit State(MeteringProxyOptions given)
      : providers(read_providers(given.providers)),
        keys(keys_of(given.providers)),
        service(given),
        server(with_unknown_path(given.server)),
        passages("the proxy", limits::kProxyExchanges, limits::kProxyExchanges) {
    add_routes();
  }

  const std::map<std::string, Upstream, std::less<>> providers;
  const std::shared_ptr<const HiddenKeys> keys;
  ExchangeService service;
  std::mutex mutex;
  bool stopped = false;                                                // guarded by mutex
  std::map<std::string, std::shared_ptr<RunMeter>, std::less<>> runs;  // by key's digest; the same
  net::HttpServer server;
  Passages passages;  // last: its threads use the above

  /// What a request is taken for.
  struct Door {
    ModelApi api = ModelApi::kChat;
    bool metered = true;
    std::string provider;  ///< that the path names; empty: it names none
  };
  void add_routes();
  void add_route(std::set<std::string>& taken, const std::string& method,
                 const std::string& pattern, const Door& door);
  net::Response take(const Door& door, const net::Request& request);
  std::shared_ptr<RunMeter> run_of(const net::Headers& headers);
  const std::pair<const std::string, Upstream>* provider_of(ModelApi api,
                                                            const std::string& named) const;
  std::string provider_names() const;
  void stop();
};

void MeteringProxy::State::add_route(std::set<std::string>& taken, const std::string& method,
                                     const std::string& pattern, const Door& door) {
  if (!taken.insert(method + " " + pattern).second) return;
  net::RouteOptions options;
  options.body_bytes_max = limits::kProxyRequestBytes;
  options.brief = true;
  server.route(
      method, pattern, [this, door](const net::Request& request) { return take(door, request); },
      options);
}

// What a provider's own path means goes before Azure's, which begin with /openai.
void MeteringProxy::State::add_routes() {
  std::set<std::string> taken;
  std::vector<std::string> prefixes;
  for (const auto& [name, upstream] : providers) prefixes.push_back(name);
  prefixes.emplace_back();
  for (const std::string& provider : prefixes) {
    const std::string prefix = provider.empty() ? "" : "/" + provider;
    for (const ModelRoute& route : model_routes()) {
      add_route(taken, "POST", prefix + std::string(route.pattern), {route.api, true, provider});
    }
    add_route(taken, "POST", prefix + "/v1/messages/count_tokens",
              {ModelApi::kMessages, false, provider});
    for (const char* path : {"/v1/models", "/v1/models/{model}", "/models"}) {
      add_route(taken, "GET", prefix + path, {ModelApi::kChat, false, provider});
    }
  }
}

// By a digest: how long the look-up takes tells nothing of a key.
std::shared_ptr<RunMeter> MeteringProxy::State::run_of(const net::Headers& headers) {
  std::shared_ptr<RunMeter> run;
  each_key(headers, [&](std::string_view key) {
    const std::string digest = sha256_hex(key);
    const std::lock_guard lock(mutex);
    if (const auto found = runs.find(digest); found != runs.end()) run = found->second;
  });
  return run;
}

const std::pair<const std::string, Upstream>* MeteringProxy::State::provider_of(
    ModelApi api, const std::string& named) const {
  const char* usual = api == ModelApi::kMessages ? "anthropic" : "openai";
  const auto found = providers.find(named.empty() ? usual : named);
  if (found != providers.end()) return &*found;
  return providers.size() == 1 ? &*providers.begin() : nullptr;
}

std::string MeteringProxy::State::provider_names() const {
  std::vector<std::string> names;
  for (const auto& [name, upstream] : providers) names.push_back("/" + name);
  return join(names, ", ");
}

net::Response MeteringProxy::State::take(const Door& door, const net::Request& request) {
  ModelApi api = door.api;
  if (!door.metered && request.headers.get("anthropic-version")) api = ModelApi::kMessages;
  const std::shared_ptr<RunMeter> run = run_of(request.headers);
  if (!run) {
    return refuse(api, {401, "this is the proxy of a supervised run: use the key that it gave",
                        "invalid_api_key"});
  }
  if (is_encoded(request.headers)) {
    return refuse(api, {415, "the proxy reads no compressed requests", "unsupported_encoding"});
  }
  const auto* provider = provider_of(api, door.provider);
  if (provider == nullptr) {
    return refuse(api, {404, "no provider is meant; ask below one of " + provider_names(),
                        "unknown_provider"});
  }
  std::string_view target = origin_form(request.target);
  if (!door.provider.empty()) target.remove_prefix(door.provider.size() + 1);
  const Upstream& upstream = provider->second;
  const auto question = std::make_shared<const ExchangeService::Question>(
      ExchangeService::Question{provider->first, &upstream, request.path,
                                upstream_request(api, request, target, upstream), run});
  return passages.begin(std::make_shared<Passage>(api, keys), [this, metered = door.metered,
                                                               question](Passage& passage) {
    metered ? service.exchange(passage, *question) : service.pass_on(passage, *question);
  });
}

void MeteringProxy::State::stop() {
  decltype(runs) ended;
  {
    const std::lock_guard lock(mutex);
    stopped = true;
    ended.swap(runs);
  }
  for (const auto& [key, run] : ended) run->end();
  server.stop();
  passages.stop();
}

// ---- runs ----

namespace {

class OpenRun final : public MeteredRun {
 public:
  OpenRun(std::shared_ptr<RunMeter> meter, net::HttpServer& server, std::function<void()> forget)
      : meter_(std::move(meter)), server_(server), forget_(std::move(forget)) {}
  ~OpenRun() override { end(); }

  const std::string& key() const override { return meter_->key(); }
  void accept_on(FileDescriptor listener) override {
    const std::uint64_t number = server_.add_listener(std::move(listener));
    const std::lock_guard lock(mutex_);
    listeners_.push_back(number);
  }
  Metered so_far(std::chrono::nanoseconds silence) const override {
    return meter_->so_far(silence);
  }
  Metered end() override {
    forget_();
    meter_->end();
    const std::lock_guard lock(mutex_);
    for (const std::uint64_t listener : std::exchange(listeners_, {})) {
      server_.forget_listener(listener);
    }
    return meter_->so_far(std::chrono::nanoseconds::max());
  }

 private:
  const std::shared_ptr<RunMeter> meter_;
  net::HttpServer& server_;
  const std::function<void()> forget_;
  std::mutex mutex_;
  std::vector<std::uint64_t> listeners_;
};

}  // namespace

MeteringProxy::MeteringProxy(MeteringProxyOptions options)
    : state_(std::make_unique<State>(std::move(options))) {}

MeteringProxy::~MeteringProxy() {
  stop();
}
void MeteringProxy::start() {
  state_->server.start();
}
void MeteringProxy::stop() {
  state_->stop();
}
std::string MeteringProxy::url() const {
  return state_->server.url();
}

std::unique_ptr<MeteredRun> MeteringProxy::open(MeteredRunOptions options) {
  State& state = *state_;
  auto meter = std::make_shared<RunMeter>(std::move(options), state.service.masker());
  const std::string digest = sha256_hex(meter->key());
  {
    const std::lock_guard lock(state.mutex);
    if (!state.stopped) state.runs.emplace(digest, meter);
  }
  return std::make_unique<OpenRun>(std::move(meter), state.server, [&state, digest] {
    const std::lock_guard lock(state.mutex);
    state.runs.erase(digest);
  });
}

}  // namespace necrocode::llm
