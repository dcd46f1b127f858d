// What the tests of LLMClient over sockets share: a stream's bytes, a good answer, a question.
#pragma once

#include <string>

#include "necrocode/llm/client.hpp"
#include "support/fake_clock.hpp"
#include "support/raw_server.hpp"

namespace necrocode::test {

inline const std::string kKey = "sk-test-0123456789abcdefghij";
inline const std::string kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
    "X-Request-Id: req-7\r\n\r\n";

inline std::string event(const std::string& json) {
  return "data: " + json + "\n\n";
}

inline std::string piece(const std::string& text) {
  const Json delta = Json::object({{"content", text}});
  return event(
      Json::object({{"choices", Json(Json::Array{Json::object({{"index", 0}, {"delta", delta}})})}})
          .dump());
}

inline const std::string kFinish =
    event(R"({"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]})") +
    event(R"({"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}})") +
    "data: [DONE]\n\n";

inline const std::string kGoodStream = kStreamHead + piece("fo") + piece("ur") + kFinish;

inline std::string good_answer(const std::string& content) {
  const Json message = Json::object({{"role", "assistant"}, {"content", content}});
  const Json choice = Json::object({{"message", message}, {"finish_reason", "stop"}});
  return answer(200,
                Json::object({{"model", "gpt-4-0613"},
                              {"choices", Json(Json::Array{choice})},
                              {"usage", Json::object({{"prompt_tokens", 1000},
                                                      {"completion_tokens", 500},
                                                      {"total_tokens", 1500}})}})
                    .dump(),
                "Content-Type: application/json\r\n");
}

inline ChatRequest question(const std::string& text = "two and two?") {
  ChatRequest request;
  request.messages = {{"user", text}};
  return request;
}

inline LLMConfig config_for(const RawServer& server, const Clock& clock, int retries = 3) {
  LLMConfig config;
  config.api_key = Secret(kKey);
  config.endpoint = server.url("/v1");
  config.http = net::make_curl_http_client();
  config.retry.retries = retries;
  config.environment.clock = &clock;
  config.environment.random = [] { return 0.5; };
  return config;
}

}  // namespace necrocode::test
