// floor_http URL CALLS IN_FLIGHT [BODY_FILE [HEADER]]: the floor of every HTTP client here:
// libcurl's multi interface on one thread, keep-alive, IN_FLIGHT easy handles used again and again.
// GET, or POST of BODY_FILE's bytes, with HEADER beside its own. Prints
// {"calls","cpu_seconds","wall_seconds","max_rss_kib","first_byte_us","whole_us"}, the latter two
// p50 and p99 over the calls; exits with 1 when a call fails.
#include <curl/curl.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct Slot {
  CURL* easy = nullptr;
  std::string answer;
  Clock::time_point begun, first_byte;
};

std::size_t keep(char* data, std::size_t, std::size_t size, void* target) {
  Slot& slot = *static_cast<Slot*>(target);
  if (slot.answer.empty()) slot.first_byte = Clock::now();
  slot.answer.append(data, size);
  return size;
}

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

void prepare(Slot& slot, const char* url, const std::string& body, curl_slist* headers) {
  slot.easy = curl_easy_init();
  curl_easy_setopt(slot.easy, CURLOPT_URL, url);
  curl_easy_setopt(slot.easy, CURLOPT_WRITEFUNCTION, keep);
  curl_easy_setopt(slot.easy, CURLOPT_WRITEDATA, &slot);
  curl_easy_setopt(slot.easy, CURLOPT_PRIVATE, &slot);
  curl_easy_setopt(slot.easy, CURLOPT_NOSIGNAL, 1L);
  if (body.empty()) return;
  curl_easy_setopt(slot.easy, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(slot.easy, CURLOPT_POSTFIELDS, body.c_str());
  curl_easy_setopt(slot.easy, CURLOPT_POSTFIELDSIZE, static_cast<long>(body.size()));
}

bool succeeded(const CURLMsg& message) {
  long status = 0;
  curl_easy_getinfo(message.easy_handle, CURLINFO_RESPONSE_CODE, &status);
  return message.data.result == CURLE_OK && status == 200;
}

/// Of each call that went well, in microseconds from its beginning.
struct Times {
  std::vector<long> first_byte, whole;
};

void note(Times& times, const Slot& slot) {
  const auto since = [&](Clock::time_point when) {
    return std::chrono::duration_cast<std::chrono::microseconds>(when - slot.begun).count();
  };
  times.first_byte.push_back(since(slot.first_byte));
  times.whole.push_back(since(Clock::now()));
}

void begin(CURLM* multi, Slot& slot) {
  slot.answer.clear();
  slot.begun = Clock::now();
  curl_multi_add_handle(multi, slot.easy);
}

/// p50 and p99, as JSON.
std::string percentiles(std::vector<long> times) {
  std::sort(times.begin(), times.end());
  const auto at = [&](std::size_t percent) {
    return times.empty() ? "0" : std::to_string(times[(times.size() - 1) * percent / 100]);
  };
  return "[" + at(50) + "," + at(99) + "]";
}

/// How many of `calls` went well; stops at the first that did not.
long drive(CURLM* multi, std::vector<Slot>& slots, long calls, Times& times) {
  long begun = 0;
  long done = 0;
  for (Slot& slot : slots) {
    if (begun++ < calls) begin(multi, slot);
  }
  for (int running = 1; running > 0;) {
    curl_multi_perform(multi, &running);
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      if (!succeeded(*message)) return done;
      ++done;
      CURL* easy = message->easy_handle;
      Slot* slot = nullptr;
      curl_easy_getinfo(easy, CURLINFO_PRIVATE, &slot);
      note(times, *slot);
      curl_multi_remove_handle(multi, easy);
      if (begun++ < calls) {
        begin(multi, *slot);
        running = 1;
      }
    }
    if (running > 0) curl_multi_poll(multi, nullptr, 0, 1000, nullptr);
  }
  return done;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4 || argc > 6) {
    std::fputs("usage: floor_http URL CALLS IN_FLIGHT [BODY_FILE [HEADER]]\n", stderr);
    return 2;
  }
  const long calls = std::atol(argv[2]);
  std::vector<Slot> slots(static_cast<std::size_t>(std::atol(argv[3])));
  std::string body;
  if (argc > 4) {
    std::ifstream file(argv[4], std::ios::binary);
    body.assign(std::istreambuf_iterator<char>(file), {});
  }
  curl_global_init(CURL_GLOBAL_DEFAULT);
  curl_slist* headers = curl_slist_append(nullptr, "Content-Type: application/json");
  headers = curl_slist_append(headers, "Expect:");
  if (argc > 5) headers = curl_slist_append(headers, argv[5]);
  const auto start = Clock::now();
  for (Slot& slot : slots) prepare(slot, argv[1], body, headers);
  CURLM* multi = curl_multi_init();
  Times times;
  const long done = drive(multi, slots, calls, times);
  const double wall = std::chrono::duration<double>(Clock::now() - start).count();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf(
      "{\"calls\":%ld,\"cpu_seconds\":%.6f,\"wall_seconds\":%.6f,\"max_rss_kib\":%ld,"
      "\"first_byte_us\":%s,\"whole_us\":%s}\n",
      done, seconds(usage.ru_utime) + seconds(usage.ru_stime), wall, usage.ru_maxrss,
      percentiles(times.first_byte).c_str(), percentiles(times.whole).c_str());
  return done == calls ? 0 : 1;
}
