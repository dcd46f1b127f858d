// The HttpClient over libcurl. One thread owns the multi handle and every connection; send()
// prepares a transfer on its caller's thread, hands it over, and sleeps until the I/O thread has
// finished it. What happens within one request is in curl_transfer.cpp.
//
// Deliberately absent: retries (libcurl's own are refused and told as a reset),
// libcurl's redirects, cookies, .netrc, content decoding, and libcurl's total timer, which would
// end healthy streams.
#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "necrocode/base/check.hpp"
#include "necrocode/net/curl_transfer.hpp"
#include "necrocode/net/http_client.hpp"

namespace necrocode::net {
namespace {

using std::chrono::milliseconds;

class CurlHttpClient final : public HttpClient, public TransferDriver {
 public:
  explicit CurlHttpClient(HttpClientOptions options);
  ~CurlHttpClient() override;
  HttpResponse send(const HttpRequest& request, const CallContext& context) override;

 private:
  // On the callers' threads.
  HttpResponse send_once(const HttpRequest& request, const Url& url, const CallContext& context,
                         SteadyTime deadline);
  std::unique_ptr<Transfer> take_spare();
  void give_back(std::unique_ptr<Transfer> transfer);
  void hand_over(Transfer& transfer);
  void wake();

  // On the I/O thread.
  void run();
  bool has_news();
  bool take_new_work();
  void admit(Transfer& transfer);
  void start(Transfer& transfer);
  void collect_finished();
  milliseconds expire();
  void end_cancelled();
  SteadyTime turn_began() const override { return turn_began_; }
  void rearm(Transfer& transfer) override;
  void finish(Transfer& transfer);
  void leave_host(Transfer& transfer);

  const HttpClientOptions options_;
  CURLM* const multi_;

  std::mutex spares_mutex_;  // guards the three below
  std::vector<std::unique_ptr<Transfer>> spares_;
  std::size_t senders_ = 0;
  std::condition_variable no_senders_;

  std::mutex inbox_mutex_;  // guards the three below
  std::vector<Transfer*> inbox_;
  std::vector<std::unique_ptr<Transfer>> retired_;
  bool stopping_ = false;

  std::atomic<bool> sleeping_{false};  // the I/O thread must be woken to see news
  std::atomic<bool> some_cancelled_{false};

  // The I/O thread's own. Every transfer it holds has exactly one entry in timers_, which is never
  // later than due(); it may be sooner, since progress only moves due() away.
  std::set<std::pair<SteadyTime, Transfer*>> timers_;
  std::unordered_map<std::string, Host> hosts_;
  std::vector<Transfer*> arrived_;
  SteadyTime turn_began_;  // the time to the precision of one turn of the loop

  std::jthread thread_;
};

void init_libcurl_once() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (code != CURLE_OK) throw std::bad_alloc();
}

CURLM* make_multi() {
  init_libcurl_once();
  CURLM* multi = curl_multi_init();
  if (multi == nullptr) throw std::bad_alloc();
  curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, static_cast<long>(limits::kHttpIdleConnections));
  curl_multi_setopt(multi, CURLMOPT_PIPELINING, static_cast<long>(CURLPIPE_NOTHING));
  return multi;
}

CurlHttpClient::CurlHttpClient(HttpClientOptions options)
    : options_(std::move(options)), multi_(make_multi()), thread_([this] { run(); }) {}

CurlHttpClient::~CurlHttpClient() {
  {
    const std::lock_guard lock(inbox_mutex_);
    stopping_ = true;
  }
  wake();
  thread_.join();
  std::unique_lock lock(spares_mutex_);
  no_senders_.wait(lock, [this] { return senders_ == 0; });
  spares_.clear();
  retired_.clear();
  curl_multi_cleanup(multi_);
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
  std::unique_ptr<Transfer> transfer = take_spare();
  struct Return {
    CurlHttpClient& client;
    std::unique_ptr<Transfer>& transfer;
    ~Return() { client.give_back(std::move(transfer)); }
  } give_back_at_end{*this, transfer};

  transfer->begin(request, url, deadline);
  if (context.cancelled()) transfer->fail(TransportFailure::kCancelled, "cancelled");
  if (deadline <= std::chrono::steady_clock::now()) {
    transfer->fail(TransportFailure::kTimeout, "no time was left");
  }
  if (transfer->failure) throw transfer->to_error();
  {
    hand_over(*transfer);
    const std::stop_callback on_stop(context.stop, [this, &transfer] {
      transfer->cancelled = true;
      some_cancelled_ = true;
      wake();
    });
    std::unique_lock lock(transfer->mutex);
    transfer->wake.wait(lock, [&] { return transfer->done; });
  }
  if (transfer->failure) throw transfer->to_error();
  return std::move(transfer->response);
}

std::unique_ptr<Transfer> CurlHttpClient::take_spare() {
  {
    const std::lock_guard lock(spares_mutex_);
    ++senders_;
    if (!spares_.empty()) {
      auto spare = std::move(spares_.back());
      spares_.pop_back();
      return spare;
    }
  }
  try {
    return std::make_unique<Transfer>(*this, options_);
  } catch (...) {
    give_back(nullptr);
    throw;
  }
}

void CurlHttpClient::give_back(std::unique_ptr<Transfer> transfer) {
  if (transfer) transfer->fields.reset();  // may hold a credential
  std::unique_lock lock(spares_mutex_);
  if (transfer && spares_.size() < limits::kHttpSpareHandles)
    spares_.push_back(std::move(transfer));
  if (transfer) {
    // The I/O thread may still be in notify_one() of this transfer: it frees it itself.
    const std::lock_guard inbox_lock(inbox_mutex_);
    retired_.push_back(std::move(transfer));
  }
  if (--senders_ == 0) no_senders_.notify_all();
}

void CurlHttpClient::hand_over(Transfer& transfer) {
  {
    const std::lock_guard lock(inbox_mutex_);
    if (stopping_) {
      transfer.fail(TransportFailure::kCancelled, "the HTTP client is closing");
      throw transfer.to_error();
    }
    inbox_.push_back(&transfer);
  }
  wake();
}

void CurlHttpClient::wake() {
  // Only the first who finds it asleep; while it works, it looks into the inbox before it sleeps.
  if (sleeping_.exchange(false)) curl_multi_wakeup(multi_);
}

// ---- the I/O thread ----------------------------------------------------------------------------

void CurlHttpClient::run() {
  sigset_t all;
  sigfillset(&all);
  // Signals are for the main thread; SIGPIPE (OpenSSL writes without MSG_NOSIGNAL) for nobody.
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  while (take_new_work()) {
    turn_began_ = std::chrono::steady_clock::now();
    int running = 0;
    curl_multi_perform(multi_, &running);
    collect_finished();
    if (some_cancelled_.exchange(false)) end_cancelled();
    const milliseconds wait = expire();
    sleeping_ = true;  // before the look: what comes after it, wakes
    const bool news = some_cancelled_ || has_news();
    curl_multi_poll(multi_, nullptr, 0, news ? 0 : static_cast<int>(wait.count()), nullptr);
    sleeping_ = false;
  }
  while (!timers_.empty()) {
    Transfer& transfer = *timers_.begin()->second;
    transfer.fail(TransportFailure::kCancelled, "the HTTP client is closing");
    finish(transfer);
  }
}

bool CurlHttpClient::has_news() {
  const std::lock_guard lock(inbox_mutex_);
  return !inbox_.empty() || stopping_;
}

/// False when it is time to end.
bool CurlHttpClient::take_new_work() {
  std::vector<std::unique_ptr<Transfer>> retired;
  bool stopping = false;
  {
    const std::lock_guard lock(inbox_mutex_);
    arrived_.swap(inbox_);
    retired.swap(retired_);
    stopping = stopping_;
  }
  for (Transfer* transfer : arrived_) {
    transfer->timer = transfer->due();
    timers_.emplace(transfer->timer, transfer);
    if (!stopping) admit(*transfer);
  }
  arrived_.clear();
  return !stopping;
}

/// Begins now, or waits in order of arrival for one of its host's connections.
void CurlHttpClient::admit(Transfer& transfer) {
  Host& host = hosts_[transfer.origin];
  transfer.host = &host;
  if (host.active >= options_.connections_per_host) {
    host.waiting.push_back(&transfer);
    return;
  }
  ++host.active;
  start(transfer);
}

void CurlHttpClient::start(Transfer& transfer) {
  transfer.in_multi = true;
  const CURLMcode code = curl_multi_add_handle(multi_, transfer.easy.get());
  NECROCODE_CHECK(code == CURLM_OK || code == CURLM_OUT_OF_MEMORY);
  if (code == CURLM_OK) return;
  transfer.fail(TransportFailure::kConnect, "out of memory");
  finish(transfer);
}

void CurlHttpClient::collect_finished() {
  int left = 0;
  while (CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode code = message->data.result;
    void* owner = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &owner);
    Transfer& transfer = *static_cast<Transfer*>(owner);
    transfer.end(code);
    finish(transfer);
  }
}

/// Ends what is overdue; how long the thread may sleep.
milliseconds CurlHttpClient::expire() {
  constexpr milliseconds kLongest{60'000};
  const SteadyTime now = std::chrono::steady_clock::now();
  while (!timers_.empty() && timers_.begin()->first <= now) {
    Transfer& transfer = *timers_.begin()->second;
    if (transfer.due() > now) {
      rearm(transfer);
      continue;
    }
    const bool whole = transfer.due() == transfer.deadline;
    transfer.fail(TransportFailure::kTimeout, whole ? "no whole answer in time"
                                              : transfer.answer_began
                                                  ? "the answer stood still for too long"
                                                  : "no answer began in time");
    finish(transfer);
  }
  if (timers_.empty() || timers_.begin()->first - now > kLongest) return kLongest;
  return std::chrono::ceil<milliseconds>(timers_.begin()->first - now);
}

void CurlHttpClient::end_cancelled() {
  std::vector<Transfer*> cancelled;
  for (const auto& [time, transfer] : timers_) {
    if (transfer->cancelled) cancelled.push_back(transfer);
  }
  for (Transfer* transfer : cancelled) {
    transfer->fail(TransportFailure::kCancelled, "cancelled");
    finish(*transfer);
  }
}

void CurlHttpClient::rearm(Transfer& transfer) {
  auto entry = timers_.extract({transfer.timer, &transfer});
  transfer.timer = transfer.due();
  entry.value().first = transfer.timer;
  timers_.insert(std::move(entry));
}

/// Takes the transfer out of everything and wakes its caller, whose it is from then on.
void CurlHttpClient::finish(Transfer& transfer) {
  timers_.erase({transfer.timer, &transfer});
  if (transfer.in_multi) {
    // Of a request that is not finished this closes the connection: a late answer must not be read
    // as the next request's.
    curl_multi_remove_handle(multi_, transfer.easy.get());
  }
  leave_host(transfer);
  {
    const std::lock_guard lock(transfer.mutex);
    transfer.done = true;
  }
  transfer.wake.notify_one();  // a transfer that is no longer needed goes through retired_
}

void CurlHttpClient::leave_host(Transfer& transfer) {
  if (transfer.host == nullptr) return;  // never admitted: the client is closing
  Host& host = *transfer.host;
  if (!transfer.in_multi) {
    std::erase(host.waiting, &transfer);
  } else if (!host.waiting.empty()) {
    Transfer& next = *host.waiting.front();
    host.waiting.pop_front();
    start(next);  // takes over the place, so `active` stays
    return;
  } else {
    --host.active;
  }
  if (host.active == 0 && host.waiting.empty() && hosts_.size() > limits::kHttpHosts) {
    hosts_.erase(transfer.origin);
  }
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
