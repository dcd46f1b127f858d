// The HttpClient over libcurl. Each request runs on its caller's own thread, over a handle that
// keeps its connection for the next one: no thread of ours stands in between, and none is woken.
// This file knows who may go on when: handles, the places of a host, cancelling, closing. What
// happens within one request is in curl_transfer.cpp.
//
// Deliberately absent: retries (libcurl's own are refused and told as a reset),
// libcurl's redirects, cookies, .netrc, content decoding, and libcurl's total timer, which would
// end healthy streams.
#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <deque>
#include <list>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "necrocode/base/check.hpp"
#include "necrocode/net/curl_transfer.hpp"
#include "necrocode/net/http_client.hpp"

namespace necrocode::net {
namespace {

constexpr const char* kClosing = "the HTTP client is closing";

void init_libcurl_once() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (code != CURLE_OK) throw std::bad_alloc();
}

/// What all handles of a client have in common: found addresses and TLS sessions.
class SharedCache {
 public:
  SharedCache() {
    init_libcurl_once();
    share_ = curl_share_init();
    if (share_ == nullptr) throw std::bad_alloc();
    curl_share_setopt(share_, CURLSHOPT_LOCKFUNC, &lock);
    curl_share_setopt(share_, CURLSHOPT_UNLOCKFUNC, &unlock);
    curl_share_setopt(share_, CURLSHOPT_USERDATA, this);
    curl_share_setopt(share_, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
    curl_share_setopt(share_, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
  }
  ~SharedCache() { curl_share_cleanup(share_); }
  SharedCache(const SharedCache&) = delete;
  SharedCache& operator=(const SharedCache&) = delete;
  void* handle() const { return share_; }

 private:
  static void lock(CURL*, curl_lock_data data, curl_lock_access, void* self) {
    static_cast<SharedCache*>(self)->mutexes_[data].lock();
  }
  static void unlock(CURL*, curl_lock_data data, void* self) {
    static_cast<SharedCache*>(self)->mutexes_[data].unlock();
  }
  CURLSH* share_ = nullptr;
  std::array<std::mutex, CURL_LOCK_DATA_LAST> mutexes_;  // libcurl says which
};

/// OpenSSL writes without MSG_NOSIGNAL: while this lives, a broken connection does not kill the
/// process of a caller that has left SIGPIPE as it was.
class NoSigpipe {
 public:
  NoSigpipe() {
    sigemptyset(&sigpipe_);
    sigaddset(&sigpipe_, SIGPIPE);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &sigpipe_, &before_);
  }
  ~NoSigpipe() {
    const timespec at_once{};
    while (!was_pending_ && sigtimedwait(&sigpipe_, nullptr, &at_once) > 0) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoSigpipe(const NoSigpipe&) = delete;
  NoSigpipe& operator=(const NoSigpipe&) = delete;

 private:
  sigset_t sigpipe_{}, before_{};
  bool was_pending_ = false;
};

class CurlHttpClient final : public HttpClient {
 public:
  explicit CurlHttpClient(HttpClientOptions options) : options_(std::move(options)) {}
  ~CurlHttpClient() override;
  HttpResponse send(const HttpRequest& request, const CallContext& context) override;

 private:
  /// A request that waits for one of its host's places.
  struct Waiter {
    bool may_go = false;
    std::condition_variable turn;
  };
  struct Host {
    std::size_t active = 0;
    std::deque<Waiter*> waiting;  ///< in order of arrival
  };
  using Handle = std::unique_ptr<Transfer>;

  HttpResponse send_once(const HttpRequest& request, const Url& url, const CallContext& context,
                         SteadyTime deadline);
  Handle enter(const std::string& origin, const CallContext& context, SteadyTime deadline);
  void wait_for_place(std::unique_lock<std::mutex>& lock, Host& host, const CallContext& context,
                      SteadyTime deadline);
  Handle take_idle(const std::string& origin);
  void leave(const std::string& origin, Handle handle);
  void pass_place_on(const std::string& origin);
  void run(Transfer& transfer, const CallContext& context, bool tls);

  const HttpClientOptions options_;
  SharedCache cache_;

  std::mutex mutex_;  // guards all below
  std::unordered_map<std::string, Host> hosts_;
  std::vector<Handle> idle_;  // the last used at the end
  std::unordered_set<Transfer*> running_;
  std::size_t senders_ = 0;
  std::condition_variable no_senders_;
  bool closing_ = false;
};

CurlHttpClient::~CurlHttpClient() {
  std::unique_lock lock(mutex_);
  closing_ = true;
  for (Transfer* transfer : running_) transfer->cancel(kClosing);
  for (auto& [origin, host] : hosts_) {
    for (Waiter* waiter : host.waiting) waiter->turn.notify_one();
  }
  no_senders_.wait(lock, [this] { return senders_ == 0; });
}

HttpResponse CurlHttpClient::send(const HttpRequest& request, const CallContext& context) {
  auto url = Url::parse(request.url);
  if (!url || request.url.size() > limits::kHttpHeaderBytes) {
    throw invalid("not an http or https URL, or too long");
  }
  if (!url->user_info.empty()) throw invalid("the URL contains credentials");
  if (!is_valid_header(request.method, "")) throw invalid("the method is malformed");

  SteadyTime deadline = context.deadline;
  if (request.timeouts.total.count() > 0) {
    deadline = std::min(deadline, std::chrono::steady_clock::now() + request.timeouts.total);
  }
  for (std::size_t redirects = 0;; ++redirects) {
    HttpResponse response = send_once(request, *url, context, deadline);
    if (redirects == request.redirects_max) return response;
    auto target = redirect_target(request, *url, response);
    if (!target) return response;
    url = std::move(target);
  }
}

HttpResponse CurlHttpClient::send_once(const HttpRequest& request, const Url& url,
                                       const CallContext& context, SteadyTime deadline) {
  const std::string origin = url.origin();
  Handle transfer = enter(origin, context, deadline);
  struct Leave {
    CurlHttpClient& client;
    const std::string& origin;
    Handle& transfer;
    ~Leave() { client.leave(origin, std::move(transfer)); }
  } leave_at_end{*this, origin, transfer};

  transfer->begin(request, url, deadline);
  run(*transfer, context, url.scheme == "https");
  if (transfer->failure) throw transfer->to_error();
  return std::move(transfer->response);
}

void CurlHttpClient::run(Transfer& transfer, const CallContext& context, bool tls) {
  {
    const std::lock_guard lock(mutex_);
    if (closing_) return transfer.fail(TransportFailure::kCancelled, kClosing);
    running_.insert(&transfer);
  }
  {
    const std::stop_callback on_stop(context.stop, [&] { transfer.cancel("cancelled"); });
    const std::optional<NoSigpipe> no_sigpipe =
        tls ? std::optional<NoSigpipe>(std::in_place) : std::nullopt;
    transfer.run();
  }
  const std::lock_guard lock(mutex_);
  running_.erase(&transfer);
}

// ---- places and handles ------------------------------------------------------------------------

TransportError not_sent(TransportFailure failure, const char* detail) {
  return TransportError(failure, Delivery::kNotSent, false, detail);
}

/// A handle, and a place at its host; throws when there is neither time nor will.
CurlHttpClient::Handle CurlHttpClient::enter(const std::string& origin, const CallContext& context,
                                             SteadyTime deadline) {
  if (context.cancelled()) throw not_sent(TransportFailure::kCancelled, "cancelled");
  if (deadline <= std::chrono::steady_clock::now()) {
    throw not_sent(TransportFailure::kTimeout, "no time was left");
  }
  Handle handle;
  {
    std::unique_lock lock(mutex_);
    if (closing_) throw not_sent(TransportFailure::kCancelled, kClosing);
    Host& host = hosts_[origin];
    if (host.active < options_.connections_per_host) {
      ++host.active;
    } else {
      wait_for_place(lock, host, context, deadline);
    }
    ++senders_;
    handle = take_idle(origin);
  }
  try {
    if (!handle) handle = std::make_unique<Transfer>(options_, cache_.handle());
  } catch (...) {
    leave(origin, nullptr);
    throw;
  }
  return handle;
}

void CurlHttpClient::wait_for_place(std::unique_lock<std::mutex>& lock, Host& host,
                                    const CallContext& context, SteadyTime deadline) {
  Waiter waiter;
  host.waiting.push_back(&waiter);
  ++senders_;  // the destructor waits for those who wait, too
  bool cancelled = false;
  bool in_time = true;
  lock.unlock();  // a token that is stopped already calls back at once
  {
    const std::stop_callback on_stop(context.stop, [&] {
      const std::lock_guard guard(mutex_);
      cancelled = true;
      waiter.turn.notify_one();
    });
    lock.lock();
    const auto decided = [&] { return waiter.may_go || cancelled || closing_; };
    in_time = waiter.turn.wait_until(lock, deadline, decided);
    lock.unlock();
  }
  lock.lock();
  if (--senders_ == 0) no_senders_.notify_all();
  if (waiter.may_go) return;  // the place is ours, whatever else came
  std::erase(host.waiting, &waiter);
  if (closing_) throw not_sent(TransportFailure::kCancelled, kClosing);
  if (!in_time) throw not_sent(TransportFailure::kTimeout, "no whole answer in time");
  throw not_sent(TransportFailure::kCancelled, "cancelled");
}

/// The one that was last at that host, for its connection; else the one that has rested longest,
/// when there are many.
CurlHttpClient::Handle CurlHttpClient::take_idle(const std::string& origin) {
  auto found = std::find_if(idle_.rbegin(), idle_.rend(),
                            [&](const Handle& handle) { return handle->origin == origin; });
  if (found == idle_.rend() && idle_.size() < limits::kHttpIdleConnections) return nullptr;
  const auto position = found == idle_.rend() ? idle_.begin() : std::prev(found.base());
  Handle handle = std::move(*position);
  idle_.erase(position);
  return handle;
}

void CurlHttpClient::leave(const std::string& origin, Handle handle) {
  if (handle) handle->fields.reset();  // may hold a credential
  std::unique_lock lock(mutex_);
  if (handle) idle_.push_back(std::move(handle));
  if (idle_.size() > limits::kHttpIdleConnections) {
    Handle one_too_many = std::move(idle_.front());
    idle_.erase(idle_.begin());
    lock.unlock();
    one_too_many.reset();  // says goodbye to the other side
    lock.lock();
  }
  pass_place_on(origin);
  if (--senders_ == 0) no_senders_.notify_all();
}

void CurlHttpClient::pass_place_on(const std::string& origin) {
  const auto found = hosts_.find(origin);
  Host& host = found->second;
  if (!host.waiting.empty()) {
    Waiter& next = *host.waiting.front();
    host.waiting.pop_front();
    next.may_go = true;
    next.turn.notify_one();
    return;
  }
  if (--host.active == 0 && hosts_.size() > limits::kHttpHosts) hosts_.erase(found);
}

}  // namespace

TransportError::TransportError(TransportFailure failure, Delivery delivery, bool reused_connection,
                               const std::string& detail, std::exception_ptr cause)
    : RunnerError(detail,
                  [&] {
                    ErrorInfo info;
                    info.maybe_accepted = delivery != Delivery::kNotSent;
                    info.cause = std::move(cause);
                    return info;
                  }()),
      failure_(failure),
      delivery_(delivery),
      reused_connection_(reused_connection) {}

std::shared_ptr<HttpClient> make_curl_http_client(HttpClientOptions options) {
  return std::make_shared<CurlHttpClient>(std::move(options));
}

std::shared_ptr<HttpClient> shared_http_client() {
  static const std::shared_ptr<HttpClient> client = make_curl_http_client();
  return client;
}

}  // namespace necrocode::net
