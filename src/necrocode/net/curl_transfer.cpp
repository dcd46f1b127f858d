#include "necrocode/net/curl_transfer.hpp"

#include <curl/curl.h>
#include <sys/socket.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "necrocode/base/check.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::net {
namespace {

struct UrlFree {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
  void operator()(char* text) const { curl_free(text); }
};

template <class T>
void set_option(CURL* easy, CURLoption option, T value) {
  const CURLcode code = curl_easy_setopt(easy, option, value);
  if (code != CURLE_OK) throw std::bad_alloc();  // the options are constants: only memory can fail
}

// ---- the answer's header -----------------------------------------------------------------------

/// "HTTP/1.1 200 OK" → 200; 0 when it is none.
int parse_status_line(std::string_view line) {
  const std::size_t space = line.find(' ');
  if (!line.starts_with("HTTP/") || space == std::string_view::npos) return 0;
  const auto status = parse_uint(line.substr(space + 1, 3));
  return status && *status >= 100 && *status <= 599 ? static_cast<int>(*status) : 0;
}

bool lengths_agree(const Headers& headers) {
  std::optional<std::string_view> first;
  for (const auto& [name, value] : headers) {
    if (!iequals(name, "Content-Length")) continue;
    if (first && *first != value) return false;
    first = value;
  }
  return true;
}

// ---- the request -------------------------------------------------------------------------------

bool has_body(const HttpRequest& request) {
  return request.body_source || !request.body.empty();
}

bool method_expects_body(std::string_view method) {
  return method == "POST" || method == "PUT" || method == "PATCH";
}

/// Framing is the client's business: a caller's own length would desynchronize the connection.
bool is_framing_header(std::string_view name) {
  return iequals(name, "Content-Length") || iequals(name, "Transfer-Encoding") ||
         iequals(name, "Host") || iequals(name, "Connection") || iequals(name, "Expect");
}

void append_field(CurlPointer<curl_slist>& list, const std::string& line) {
  curl_slist* longer = curl_slist_append(list.get(), line.c_str());
  if (longer == nullptr) throw std::bad_alloc();
  static_cast<void>(list.release());  // it is the beginning of `longer`
  list.reset(longer);
}

CurlPointer<curl_slist> make_fields(const HttpRequest& request) {
  CurlPointer<curl_slist> list;
  if (has_body(request) || method_expects_body(request.method)) {
    // libcurl's would cost a second with servers that do not know it …
    append_field(list, "Expect:");
    // … and its guess would be a lie.
    if (!request.headers.get("Content-Type")) append_field(list, "Content-Type:");
  }
  for (const auto& [name, value] : request.headers) {
    if (!is_valid_header(name, value)) throw invalid("a header field cannot be sent");
    if (is_framing_header(name)) throw invalid("the header field " + name + " is the client's own");
    // "Name;" is libcurl's way to write a field without a value.
    append_field(list, trim(value).empty() ? name + ";" : name + ": " + value);
  }
  return list;
}

/// Where a Location leads, read by the same parser that will send it.
std::optional<Url> resolve(const Url& base, const std::string& location) {
  std::unique_ptr<CURLU, UrlFree> url(curl_url());
  if (!url) throw std::bad_alloc();
  const std::string text = base.origin() + base.path;
  char* resolved = nullptr;
  if (curl_url_set(url.get(), CURLUPART_URL, text.c_str(), CURLU_PATH_AS_IS) != CURLUE_OK ||
      curl_url_set(url.get(), CURLUPART_URL, location.c_str(), 0) != CURLUE_OK ||
      curl_url_get(url.get(), CURLUPART_URL, &resolved, 0) != CURLUE_OK) {
    return std::nullopt;
  }
  return Url::parse(std::unique_ptr<char, UrlFree>(resolved).get());
}

// ---- how a transfer ended ----------------------------------------------------------------------

/// libcurl has one code for a handshake that was refused and for a connection that broke during it,
/// which another attempt may heal; then the text is the socket's, not OpenSSL's.
bool broke_in_handshake(std::string_view text) {
  return text.starts_with("OpenSSL SSL_connect:") || text.starts_with("Recv failure:") ||
         text.starts_with("Send failure:");
}

TransportFailure classify(CURLcode code, const Transfer& transfer) {
  const bool sent = transfer.requests_begun > 0;
  switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
      return TransportFailure::kTimeout;
    case CURLE_URL_MALFORMAT:
      return TransportFailure::kInvalid;
    case CURLE_SSL_CONNECT_ERROR:
      return broke_in_handshake(transfer.error_text) ? TransportFailure::kConnect
                                                     : TransportFailure::kTls;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_USE_SSL_FAILED:
      return TransportFailure::kTls;
    case CURLE_UNSUPPORTED_PROTOCOL:  // also "not HTTP/1" for an answer
      return sent ? TransportFailure::kMalformed : TransportFailure::kInvalid;
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_BAD_CONTENT_ENCODING:
      return TransportFailure::kMalformed;
    case CURLE_OUT_OF_MEMORY:  // libcurl's word for a header line above its own limit
    case CURLE_FILESIZE_EXCEEDED:
      return TransportFailure::kTooLarge;
    default:
      return sent ? TransportFailure::kReset : TransportFailure::kConnect;
  }
}

// ---- libcurl's callbacks ------------------------------------------------------------------------

curl_socket_t on_open_socket(void* owner, curlsocktype, curl_sockaddr* address) {
  if (static_cast<Transfer*>(owner)->refuse_silent_retry()) return CURL_SOCKET_BAD;
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/// The connection stands; the request is about to be written.
int on_request(void* owner, char*, char*, int, int) {
  Transfer& transfer = *static_cast<Transfer*>(owner);
  if (transfer.refuse_silent_retry()) return CURL_PREREQFUNC_ABORT;
  transfer.request_begins();
  return CURL_PREREQFUNC_OK;
}

/// No exception may pass through libcurl.
std::size_t take(Transfer& transfer, void (Transfer::*taker)(std::string_view),
                 std::string_view bytes) {
  try {
    (transfer.*taker)(bytes);
  } catch (const std::bad_alloc&) {
    transfer.fail(TransportFailure::kTooLarge, "out of memory");
  }
  return transfer.failure ? CURL_WRITEFUNC_ERROR : bytes.size();
}

std::size_t on_header(char* data, std::size_t, std::size_t size, void* owner) {
  return take(*static_cast<Transfer*>(owner), &Transfer::take_header_line, {data, size});
}

std::size_t on_body(char* data, std::size_t, std::size_t size, void* owner) {
  return take(*static_cast<Transfer*>(owner), &Transfer::take_body, {data, size});
}

std::size_t on_read(char* buffer, std::size_t, std::size_t size, void* owner) {
  return static_cast<Transfer*>(owner)->read_body(buffer, size).value_or(CURL_READFUNC_ABORT);
}

int on_progress(void* owner, curl_off_t, curl_off_t, curl_off_t, curl_off_t uploaded) {
  Transfer& transfer = *static_cast<Transfer*>(owner);
  if (uploaded != transfer.uploaded) {
    transfer.uploaded = uploaded;
    transfer.last_sent = transfer.now;
  }
  return 0;
}

}  // namespace

void CurlFree::operator()(void* easy) const {
  curl_easy_cleanup(easy);
}
void CurlFree::operator()(curl_slist* list) const {
  curl_slist_free_all(list);
}
void CurlMultiFree::operator()(void* multi) const {
  // It changes the process's SIGPIPE for a moment: two at once would restore each other's.
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  curl_multi_cleanup(multi);
}

TransportError invalid(const std::string& detail) {
  return TransportError(TransportFailure::kInvalid, Delivery::kNotSent, false, detail);
}

std::optional<Url> redirect_target(const HttpRequest& request, const Url& from,
                                   const HttpResponse& response) {
  if ((request.method != "GET" && request.method != "HEAD") || has_body(request)) {
    return std::nullopt;
  }
  switch (response.status) {
    case 301:
    case 302:
    case 303:
    case 307:
    case 308:
      break;
    default:
      return std::nullopt;
  }
  const auto location = response.headers.get("Location");
  if (!location) return std::nullopt;
  auto target = resolve(from, std::string(*location));
  if (!target || target->origin() != from.origin() || !target->user_info.empty())
    return std::nullopt;
  return target;
}

// ---- before it runs ----------------------------------------------------------------------------

Transfer::Transfer(const HttpClientOptions& the_options, void* share)
    : options(the_options), multi(curl_multi_init()), easy(curl_easy_init()) {
  if (!multi || !easy) throw std::bad_alloc();
  // Without descriptors libcurl makes one that nobody could wake to cancel it.
  if (curl_multi_wakeup(multi.get()) != CURLM_OK) {
    throw TransportError(TransportFailure::kConnect, Delivery::kNotSent, false,
                         "no descriptor was left");
  }
  // One connection, that of the last request.
  curl_multi_setopt(multi.get(), CURLMOPT_MAXCONNECTS, 1L);
  curl_multi_setopt(multi.get(), CURLMOPT_PIPELINING, static_cast<long>(CURLPIPE_NOTHING));
  set_constant_options(share);
}

void Transfer::set_constant_options(void* share) {
  set_option(easy.get(), CURLOPT_SHARE, share);
  set_option(easy.get(), CURLOPT_NOSIGNAL, 1L);
  // A cancelled DNS lookup must hold nobody.
  set_option(easy.get(), CURLOPT_QUICK_EXIT, 1L);
  set_option(easy.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  set_option(easy.get(), CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set_option(easy.get(), CURLOPT_HTTP09_ALLOWED, 0L);
  set_option(easy.get(), CURLOPT_FOLLOWLOCATION, 0L);
  set_option(easy.get(), CURLOPT_PATH_AS_IS, 1L);
  set_option(easy.get(), CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
  set_option(easy.get(), CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  set_option(easy.get(), CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  set_option(easy.get(), CURLOPT_HEADEROPT, static_cast<long>(CURLHEADER_SEPARATE));
  set_option(easy.get(), CURLOPT_TCP_NODELAY, 1L);
  set_option(easy.get(), CURLOPT_TCP_KEEPALIVE, 1L);
  set_option(easy.get(), CURLOPT_TCP_KEEPIDLE, 30L);
  set_option(easy.get(), CURLOPT_TCP_KEEPINTVL, 10L);
  constexpr long kAge = std::chrono::seconds(limits::kHttpConnectionAge).count();
  set_option(easy.get(), CURLOPT_MAXAGE_CONN, kAge);
  set_option(easy.get(), CURLOPT_SSL_VERIFYPEER, 1L);
  set_option(easy.get(), CURLOPT_SSL_VERIFYHOST, 2L);
  if (!options.ca_file.empty()) set_option(easy.get(), CURLOPT_CAINFO, options.ca_file.c_str());
  set_option(easy.get(), CURLOPT_USERAGENT, options.user_agent.c_str());
  set_option(easy.get(), CURLOPT_OPENSOCKETFUNCTION, &on_open_socket);
  set_option(easy.get(), CURLOPT_PREREQFUNCTION, &on_request);
  set_option(easy.get(), CURLOPT_HEADERFUNCTION, &on_header);
  set_option(easy.get(), CURLOPT_WRITEFUNCTION, &on_body);
  set_option(easy.get(), CURLOPT_READFUNCTION, &on_read);
  set_option(easy.get(), CURLOPT_XFERINFOFUNCTION, &on_progress);
  set_option(easy.get(), CURLOPT_PRIVATE, this);
  for (const CURLoption data : {CURLOPT_OPENSOCKETDATA, CURLOPT_PREREQDATA, CURLOPT_HEADERDATA,
                                CURLOPT_WRITEDATA, CURLOPT_READDATA, CURLOPT_XFERINFODATA}) {
    set_option(easy.get(), data, this);
  }
  static_assert(sizeof error_text == CURL_ERROR_SIZE);
  set_option(easy.get(), CURLOPT_ERRORBUFFER, error_text);
}

void Transfer::begin(const HttpRequest& the_request, const Url& url, SteadyTime the_deadline) {
  fields.reset();
  request = &the_request;
  origin = url.origin();
  deadline = the_deadline;
  response = {};
  failure.reset();
  headers_complete = reused = answer_began = false;
  header_bytes = 0;
  requests_begun = 0;
  body_left = the_request.body_source ? the_request.body_source->size() : 0;
  uploaded = 0;
  error_text[0] = '\0';
  cancelled = nullptr;
  prepare(url);
}

void Transfer::prepare(const Url& url) {
  fields = make_fields(*request);
  set_method();
  set_option(easy.get(), CURLOPT_URL, (origin + url.path).c_str());
  set_option(easy.get(), CURLOPT_HTTPHEADER, fields.get());
  set_changed(CURLOPT_FRESH_CONNECT, set_.fresh, request->fresh_connection ? 1L : 0L);
  set_changed(CURLOPT_CONNECTTIMEOUT_MS, set_.connect_ms,
              static_cast<long>(std::max<std::int64_t>(0, request->timeouts.connect.count())));
  const bool watch_upload = has_body(*request) && request->timeouts.first_byte.count() > 0;
  set_changed(CURLOPT_NOPROGRESS, set_.no_progress, watch_upload ? 0L : 1L);
  const long direct = !options.proxies_from_environment || url.is_loopback() ? 1 : 0;
  if (direct != set_.direct) {
    // An empty proxy switches off those of the environment; null lets libcurl read it.
    set_option(easy.get(), CURLOPT_PROXY, direct ? "" : static_cast<const char*>(nullptr));
    set_.direct = direct;
  }
}

void Transfer::set_changed(int option, long& before, long value) {
  if (before == value) return;
  set_option(easy.get(), static_cast<CURLoption>(option), value);
  before = value;
}

void Transfer::set_method() {
  const bool has_none = !has_body(*request) && !method_expects_body(request->method);
  if (has_none && set_.method == request->method) return;
  set_.method.clear();                          // until all is set
  set_option(easy.get(), CURLOPT_HTTPGET, 1L);  // also undoes what an earlier request has set
  if (request->body_source) {
    set_option(easy.get(), CURLOPT_UPLOAD, 1L);
    set_option(easy.get(), CURLOPT_INFILESIZE_LARGE,
               static_cast<curl_off_t>(request->body_source->size()));
  } else if (has_body(*request) || method_expects_body(request->method)) {
    set_option(easy.get(), CURLOPT_POSTFIELDS, request->body.c_str());
    set_option(easy.get(), CURLOPT_POSTFIELDSIZE_LARGE,
               static_cast<curl_off_t>(request->body.size()));
  } else if (request->method == "HEAD") {
    set_option(easy.get(), CURLOPT_NOBODY, 1L);
  }
  set_option(easy.get(), CURLOPT_CUSTOMREQUEST, request->method.c_str());
  if (has_none) set_.method = request->method;
}

// ---- while it runs -----------------------------------------------------------------------------

void Transfer::run() {
  now = std::chrono::steady_clock::now();
  if (is_over()) return;
  const CURLMcode code = curl_multi_add_handle(multi.get(), easy.get());
  NECROCODE_CHECK(code == CURLM_OK || code == CURLM_OUT_OF_MEMORY);
  if (code != CURLM_OK) return fail(TransportFailure::kConnect, "out of memory");
  constexpr std::chrono::milliseconds kLongest{60'000};
  while (!turn()) {
    const auto wait = std::chrono::ceil<std::chrono::milliseconds>(
        std::min<SteadyTime::duration>(due() - now, kLongest));
    curl_multi_poll(multi.get(), nullptr, 0, static_cast<int>(wait.count()), nullptr);
  }
  // Of a request that is not finished this closes the connection: a late answer must not be read
  // as the next request's.
  curl_multi_remove_handle(multi.get(), easy.get());
}

bool Transfer::turn() {
  now = std::chrono::steady_clock::now();
  int running = 0;
  curl_multi_perform(multi.get(), &running);
  if (running == 0) {
    int left = 0;
    const CURLMsg* message = curl_multi_info_read(multi.get(), &left);
    NECROCODE_CHECK(message != nullptr && message->msg == CURLMSG_DONE);
    end(message->data.result);
    return true;
  }
  return is_over();
}

bool Transfer::is_over() {
  if (const char* reason = cancelled) {
    fail(TransportFailure::kCancelled, reason);
  } else if (due() <= now) {
    const bool whole = due() == deadline;
    fail(TransportFailure::kTimeout, whole          ? "no whole answer in time"
                                     : answer_began ? "the answer stood still for too long"
                                                    : "no answer began in time");
  }
  return failure.has_value();
}

void Transfer::cancel(const char* reason) {
  cancelled = reason;
  curl_multi_wakeup(multi.get());
}

bool Transfer::refuse_silent_retry() {
  if (requests_begun == 0) return false;
  fail(TransportFailure::kReset, "the kept-alive connection was closed");
  return true;
}

void Transfer::request_begins() {
  long connects = 0;
  curl_easy_getinfo(easy.get(), CURLINFO_NUM_CONNECTS, &connects);
  reused = connects == 0;
  requests_begun = 1;
  last_sent = now;
}

std::optional<std::size_t> Transfer::read_body(char* buffer, std::size_t size) {
  try {
    const std::size_t count = request->body_source->read(buffer, size);
    last_sent = now = std::chrono::steady_clock::now();  // what it took is nobody's standstill
    if (count > std::min<std::uint64_t>(size, body_left)) {
      fail(TransportFailure::kAborted, "the body is longer than it was said to be");
    } else if (count == 0 && body_left > 0) {
      fail(TransportFailure::kAborted, "the body is shorter than it was said to be");
    }
    body_left -= std::min<std::uint64_t>(count, body_left);
    if (!failure) return count;
  } catch (...) {
    fail(TransportFailure::kAborted, "the body could not be read", std::current_exception());
  }
  return std::nullopt;
}

void Transfer::take_header_line(std::string_view line) {
  last_received = now;
  answer_began = true;
  header_bytes += line.size();
  if (header_bytes > limits::kHttpHeaderBytes) {
    return fail(TransportFailure::kTooLarge, "the answer's header is too large");
  }
  if (headers_complete) return;  // a trailer: counted, not kept
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  if (response.status == 0) {
    response.status = parse_status_line(line);
    if (response.status == 0) {
      fail(TransportFailure::kMalformed, "the answer's status line is malformed");
    }
  } else if (!line.empty()) {
    add_header_line(line);
  } else if (response.status < 200) {
    response = {};  // an interim answer (RFC 9110 section 15.2); the real one follows
  } else {
    headers_complete = true;
    check_header_block();
  }
}

void Transfer::add_header_line(std::string_view line) {
  Headers& headers = response.headers;
  if (headers.size() >= limits::kHttpHeaderCount) {
    return fail(TransportFailure::kTooLarge, "the answer has too many header fields");
  }
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0 || line.front() == ' ' ||
      line.front() == '\t') {
    return fail(TransportFailure::kMalformed, "the answer has a malformed header field");
  }
  headers.add(line.substr(0, colon), std::string(trim(line.substr(colon + 1))));
}

/// The header block is whole: is the answer one we can take?
void Transfer::check_header_block() {
  if (!lengths_agree(response.headers)) {
    return fail(TransportFailure::kMalformed, "the answer has two lengths");
  }
  if (body_goes_to_sink() && request->on_head) {
    try {
      request->on_head(response);
      last_received = now = std::chrono::steady_clock::now();
    } catch (...) {
      return receiver_threw();
    }
  }
  const auto length = parse_uint(response.headers.get_or("Content-Length", ""));
  if (!length || body_goes_to_sink() || request->method == "HEAD") return;
  if (*length > request->response_bytes_max) {
    return fail(TransportFailure::kTooLarge, "the answer's body of " + std::to_string(*length) +
                                                 " bytes is larger than the limit of " +
                                                 std::to_string(request->response_bytes_max));
  }
  constexpr std::uint64_t kReserveMax = limits::kMiB;  // the rest only as it really comes
  response.body.reserve(static_cast<std::size_t>(std::min(*length, kReserveMax)));
}

void Transfer::take_body(std::string_view bytes) {
  last_received = now;
  if (body_goes_to_sink()) {
    try {
      if (!request->on_body(bytes)) {
        fail(TransportFailure::kAborted, "the receiver wanted no more");
      }
      last_received = now = std::chrono::steady_clock::now();
    } catch (...) {
      receiver_threw();
    }
  } else if (response.body.size() + bytes.size() > request->response_bytes_max) {
    fail(TransportFailure::kTooLarge, "the answer's body is larger than the limit of " +
                                          std::to_string(request->response_bytes_max) + " bytes");
  } else {
    response.body.append(bytes);
  }
}

// ---- how it stands -----------------------------------------------------------------------------

void Transfer::fail(TransportFailure kind, std::string detail, std::exception_ptr cause) {
  if (!failure) failure = Failure{kind, std::move(detail), std::move(cause)};
}

void Transfer::receiver_threw() {
  try {
    throw;
  } catch (const TransportError& error) {
    fail(error.failure(), error.summary(), error.info().cause);
  } catch (...) {
    fail(TransportFailure::kAborted, "the receiver failed", std::current_exception());
  }
}

SteadyTime Transfer::due() const {
  const HttpTimeouts& timeouts = request->timeouts;
  SteadyTime next = deadline;
  if (answer_began && timeouts.idle.count() > 0) {
    next = std::min(next, last_received + timeouts.idle);
  }
  if (!answer_began && requests_begun > 0 && timeouts.first_byte.count() > 0) {
    next = std::min(next, last_sent + timeouts.first_byte);
  }
  // Before the head it is an earlier attempt's.
  if (headers_complete && body_goes_to_sink() && request->progress_deadline != nullptr) {
    next = std::min(next, *request->progress_deadline);
  }
  return next;
}

Delivery Transfer::delivery() const {
  if (answer_began) return Delivery::kResponseStarted;
  return requests_begun > 0 ? Delivery::kMaybeAccepted : Delivery::kNotSent;
}

void Transfer::end(int code) {
  const auto result = static_cast<CURLcode>(code);
  if (result != CURLE_OK) {
    const char* text = error_text[0] != '\0' ? error_text : curl_easy_strerror(result);
    fail(classify(result, *this), printable(text));
  } else if (!headers_complete) {
    fail(TransportFailure::kReset, "the answer broke off in its header");
  }
}

TransportError Transfer::to_error() const {
  return TransportError(failure->kind, delivery(), reused, failure->detail, failure->cause);
}

}  // namespace necrocode::net
