// The HttpClient over libcurl. Each request runs on its caller's own thread, over a handle that
// keeps its connection for the next one: no thread of ours stands in between, and none is woken.
// This file knows who may go on when: handles, the places of a host, cancelling, closing. What
// happens within one request is in curl_transfer.cpp.
//
// Deliberately absent: retries (libcurl's own are refused and told as a reset),
// libcurl's redirects, cookies, .netrc, content decoding, and libcurl's total timer, which would
// end healthy streams.
#include <curl/curl.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <deque>
#include <list>
#include <mutex>
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

/// The addresses that any handle of a client has found. TLS sessions are not shared: OpenSSL
/// changes one while it connects, and libcurl 7.88 would give it to two threads at once.
class SharedAddresses {
 public:
  SharedAddresses() {
    init_libcurl_once();
    share_ = curl_share_init();
    if (share_ == nullptr) throw std::bad_alloc();
    curl_share_setopt(share_, CURLSHOPT_LOCKFUNC, &lock);
    curl_share_setopt(share_, CURLSHOPT_UNLOCKFUNC, &unlock);
    curl_share_setopt(share_, CURLSHOPT_USERDATA, this);
    curl_share_setopt(share_, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
  }
  ~SharedAddresses() { curl_share_cleanup(share_); }
  SharedAddresses(const SharedAddresses&) = delete;
  SharedAddresses& operator=(const SharedAddresses&) = delete;
  void* handle() const { return share_; }

 private:
  static void lock(CURL*, curl_lock_data data, curl_lock_access, void* self) {
    static_cast<SharedAddresses*>(self)->mutexes_[data].lock();
  }
  static void unlock(CURL*, curl_lock_data data, void* self) {
    static_cast<SharedAddresses*>(self)->mutexes_[data].unlock();
  }
  CURLSH* share_ = nullptr;
  std::array<std::mutex, CURL_LOCK_DATA_LAST> mutexes_;  // libcurl says which
};

class CurlHttpClient final : public HttpClient {
 public:
  explicit CurlHttpClient(HttpClientOptions options) : options_(std::move(options)) {
    idle_.reserve(limits::kHttpIdleConnections + 1);  // so that leave() needs no memory
  }
  ~CurlHttpClient() override;
  HttpResponse send(const HttpRequest& request, const CallContext& context) override;

 private:
  using Handle = std::unique_ptr<Transfer>;
  /// A request that waits for one of its host's places.
  struct Waiter {
    bool may_go = false;
    std::condition_variable turn;
  };
  struct Host {
    std::size_t active = 0;
    std::deque<Waiter*> waiting;  ///< in order of arrival
  };
  struct Idle {
    Handle handle;
    SteadyTime since;
  };
  class Sender;
  class Visit;

  Handle enter(const std::string& origin, const CallContext& context, SteadyTime deadline);
  void wait_for_place(std::unique_lock<std::mutex>& lock, Host& host, const CallContext& context,
                      SteadyTime deadline);
  Handle take_idle(const std::string& origin);
  void leave(const std::string& origin, Handle handle);
  void pass_place_on(const std::string& origin);

  const HttpClientOptions options_;
  SharedAddresses addresses_;

  std::mutex mutex_;  // guards all below
  std::unordered_map<std::string, Host> hosts_;
  std::vector<Idle> idle_;  // the last used at the end
  std::unordered_set<Transfer*> running_;
  std::size_t senders_ = 0;
  std::condition_variable no_senders_;
  bool closing_ = false;
};

TransportError not_sent(TransportFailure failure, const char* detail) {
  return TransportError(failure, Delivery::kNotSent, false, detail);
}

/// One send(), which the destructor waits for.
class CurlHttpClient::Sender {
 public:
  explicit Sender(CurlHttpClient& client) : client_(client) {
    const std::lock_guard lock(client_.mutex_);
    if (client_.closing_) throw not_sent(TransportFailure::kCancelled, kClosing);
    ++client_.senders_;
  }
  ~Sender() {
    const std::lock_guard lock(client_.mutex_);
    if (--client_.senders_ == 0) client_.no_senders_.notify_all();
  }
  Sender(const Sender&) = delete;
  Sender& operator=(const Sender&) = delete;

 private:
  CurlHttpClient& client_;
};

/// A place at a host and a handle for it, while they are in use.
class CurlHttpClient::Visit {
 public:
  Visit(CurlHttpClient& client, const std::string& origin, const CallContext& context,
        SteadyTime deadline)
      : client_(client), origin_(origin), handle_(client.enter(origin, context, deadline)) {}
  /// One whose request has not succeeded is not used again: it may be in any state.
  ~Visit() { client_.leave(origin_, succeeded_ ? std::move(handle_) : nullptr); }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;

  HttpResponse run(const HttpRequest& request, const Url& url, const CallContext& context,
                   SteadyTime deadline) {
    handle_->begin(request, url, deadline);
    {
      const Listed listed(client_, *handle_);
      const std::stop_callback on_stop(context.stop, [&] { handle_->cancel("cancelled"); });
      handle_->run();
    }
    if (handle_->failure) throw handle_->to_error();
    succeeded_ = true;
    return std::move(handle_->response);
  }

 private:
  /// Among those that the destructor cancels.
  class Listed {
   public:
    Listed(CurlHttpClient& client, Transfer& transfer) : client_(client), transfer_(transfer) {
      const std::lock_guard lock(client_.mutex_);
      if (client_.closing_) transfer_.cancel(kClosing);
      client_.running_.insert(&transfer_);
    }
    ~Listed() {
      const std::lock_guard lock(client_.mutex_);
      client_.running_.erase(&transfer_);
    }
    Listed(const Listed&) = delete;
    Listed& operator=(const Listed&) = delete;

   private:
    CurlHttpClient& client_;
    Transfer& transfer_;
  };

  CurlHttpClient& client_;
  const std::string& origin_;
  Handle handle_;
  bool succeeded_ = false;
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
  const Sender sender(*this);
  for (std::size_t redirects = 0;; ++redirects) {
    const std::string origin = url->origin();
    HttpResponse response =
        Visit(*this, origin, context, deadline).run(request, *url, context, deadline);
    if (redirects == request.redirects_max) return response;
    auto target = redirect_target(request, *url, response);
    if (!target) return response;
    url = std::move(target);
  }
}

// ---- places and handles ------------------------------------------------------------------------

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
    Host& host = hosts_[origin];
    if (host.active < options_.connections_per_host) {
      ++host.active;
    } else {
      wait_for_place(lock, host, context, deadline);
    }
    handle = take_idle(origin);
  }
  try {
    if (!handle) handle = std::make_unique<Transfer>(options_, addresses_.handle());
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
                            [&](const Idle& idle) { return idle.handle->origin == origin; });
  if (found == idle_.rend() && idle_.size() < limits::kHttpIdleConnections) return nullptr;
  const auto position = found == idle_.rend() ? idle_.begin() : std::prev(found.base());
  Handle handle = std::move(position->handle);
  idle_.erase(position);
  return handle;
}

/// `handle`: to be used again, or null. Closes those that have rested for too long, too.
void CurlHttpClient::leave(const std::string& origin, Handle handle) {
  if (handle) handle->fields.reset();  // may hold a credential
  const SteadyTime now = std::chrono::steady_clock::now();
  const auto is_enough = [&] {
    return !idle_.empty() && (idle_.size() > limits::kHttpIdleConnections ||
                              now - idle_.front().since > limits::kHttpConnectionAge);
  };
  std::unique_lock lock(mutex_);
  if (handle) idle_.push_back({std::move(handle), now});
  while (is_enough()) {
    Handle rested = std::move(idle_.front().handle);
    idle_.erase(idle_.begin());
    lock.unlock();
    rested.reset();  // says goodbye to the other side
    lock.lock();
  }
  pass_place_on(origin);
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
