// What the tests of the metering proxy share: a proxy before some address, with one run open.
#pragma once

#include <future>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/llm/metering_proxy.hpp"
#include "support/eventually.hpp"
#include "support/raw_client.hpp"
#include "support/raw_server.hpp"
#include "unit/llm/replay_fixture.hpp"

namespace necrocode::llm {

using namespace std::chrono_literals;
using test::ask;
using test::kModelPaths;
using test::RawConnection;
using test::RawServer;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

inline constexpr const char* kChat = "/v1/chat/completions";
inline constexpr const char* kMessages = "/v1/messages";
inline constexpr const char* kRealKey = "the-real-key-0123456789";

/// A model at $1 a million tokens in, $2 out.
inline std::shared_ptr<const PriceTable> prices(std::int64_t max_output_tokens = 1000) {
  return std::make_shared<const PriceTable>(Json::object(
      {{"gpt-4",
        Json::object({{"input", 1}, {"output", 2}, {"max_output_tokens", max_output_tokens}})}}));
}

class MeteringProxyTest : public testing::Test {
 protected:
  /// Starts a proxy before `endpoint`, as `options` say beside that, and opens a run.
  void start(const std::string& endpoint) {
    const Secret secret(kRealKey);
    ModelProvider provider{"openai", endpoint, Secret(kRealKey)};
    options_.providers.clear();
    options_.providers.push_back(std::move(provider));
    options_.masker = std::make_shared<const Masker>(std::vector<const Secret*>{&secret});
    options_.server.drain_time = 100ms;
    proxy_ = std::make_unique<MeteringProxy>(std::move(options_));
    proxy_->start();
    open();
  }
  void open() {
    run_options_.on_exchange = [this](const ExchangeReport& report) {
      const std::lock_guard lock(mutex_);
      reports_.push_back(report);
    };
    run_ = proxy_->open(run_options_);
  }
  std::string url(const std::string& path = "") const { return proxy_->url() + path; }
  std::uint16_t port() const {
    return static_cast<std::uint16_t>(net::Url::parse(proxy_->url())->port);
  }
  net::Headers bearer() const { return {{"Authorization", "Bearer " + run_->key()}}; }
  net::HttpResponse post(const std::string& path, const std::string& body) const {
    return test::send("POST", url(path), body, bearer());
  }
  net::HttpResponse question(const std::string& path, const std::string& text) const {
    return post(path, ask(path, text));
  }

  struct Got {
    int status = 0;
    std::string bytes;
    bool broke_off = false;
    net::Headers headers;
  };
  /// All that comes, however it ends.
  Got get(const std::string& path, const std::string& body) const {
    Got got;
    net::HttpRequest request;
    request.method = "POST";
    request.url = url(path);
    request.headers = bearer();
    request.body = body;
    request.on_head = [&](const net::HttpResponse& head) {
      got.status = head.status;
      got.headers = head.headers;
    };
    request.on_body = [&](std::string_view piece) {
      got.bytes.append(piece);
      return true;
    };
    try {
      net::HttpResponse answer = net::make_curl_http_client()->send(request, {});
      if (answer.status > 299) got = {answer.status, answer.body, false, answer.headers};
    } catch (const net::TransportError&) {
      got.broke_off = true;
    }
    return got;
  }
  /// The reports so far, once there are `count`.
  std::vector<ExchangeReport> reports(std::size_t count) {
    EXPECT_TRUE(test::eventually([&] {
      const std::lock_guard lock(mutex_);
      return reports_.size() >= count;
    }));
    const std::lock_guard lock(mutex_);
    return reports_;
  }
  ExchangeReport only_report() {
    const auto all = reports(1);
    EXPECT_EQ(all.size(), 1u);
    return all.empty() ? ExchangeReport{} : all.front();
  }

  MeteringProxyOptions options_;  ///< for start()
  MeteredRunOptions run_options_{};
  std::mutex mutex_;
  std::vector<ExchangeReport> reports_;  ///< guarded by mutex_; outlive the proxy
  std::unique_ptr<MeteringProxy> proxy_;
  std::unique_ptr<MeteredRun> run_;
  TemporaryDirectory folder_;
};

/// A whole HTTP answer.
inline std::string http(std::string_view body, std::string_view type = "application/json",
                        int status = 200, std::string_view headers = "") {
  return "HTTP/1.1 " + std::to_string(status) + " X\r\nContent-Type: " + std::string(type) +
         "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + std::string(headers) +
         "\r\n" + std::string(body);
}
/// One piece of a chunked body.
inline std::string chunk(std::string_view bytes) {
  char size[24];
  std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
  return size + std::string(bytes) + "\r\n";
}
inline constexpr std::string_view kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
/// A chat answer with that usage.
inline std::string chat_answer(int prompt_tokens, int completion_tokens,
                               const std::string& model = "gpt-4") {
  return R"({"model":")" + model +
         R"(","choices":[{"message":{"content":"x"},"finish_reason":"stop"}],)"
         R"("usage":{"prompt_tokens":)" +
         std::to_string(prompt_tokens) + R"(,"completion_tokens":)" +
         std::to_string(completion_tokens) + "}}";
}

}  // namespace necrocode::llm
