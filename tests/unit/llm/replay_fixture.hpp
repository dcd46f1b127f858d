// What the tests of replay servers share: a server over some entries, and ways to ask it.
#pragma once

#include <gmock/gmock.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/llm/replay.hpp"
#include "necrocode/net/event_stream.hpp"
#include "necrocode/net/http_client.hpp"

namespace necrocode::test {

inline net::HttpResponse send(const std::string& method, const std::string& url,
                              const std::string& body = {}, net::Headers headers = {}) {
  static const auto http = net::make_curl_http_client();
  net::HttpRequest request;
  request.method = method;
  request.url = url;
  request.headers = std::move(headers);
  if (!body.empty()) request.headers.set("Content-Type", "application/json");
  request.body = body;
  return http->send(request, {});
}

struct Streamed {
  std::vector<std::string> names;  ///< of the events; their type where they have no name
  std::vector<Json> data;          ///< [DONE] as a string
  std::string broken;              ///< why the stream broke off; empty: it ended cleanly
  std::string bytes;
};

/// Asks for a stream, and takes what of it comes.
inline Streamed read_stream(const std::string& url, const std::string& body) {
  net::HttpRequest request;
  request.method = "POST";
  request.url = url;
  request.body = body;
  Streamed read;
  request.on_body = [&](std::string_view piece) {
    read.bytes.append(piece);
    return true;
  };
  try {
    const net::HttpResponse answer = net::make_curl_http_client()->send(request, {});
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_TRUE(answer.headers.get_or("Content-Type", "").starts_with("text/event-stream"));
  } catch (const net::TransportError& error) {
    read.broken = error.what();
  }
  net::EventStreamReader().take(read.bytes, [&](const net::StreamEvent& event) {
    Json data = Json::try_parse(event.data).value_or(Json(event.data));
    const std::string type = data["type"].string_or("");
    EXPECT_TRUE(event.name.empty() || event.name == type) << event.name << type;
    read.names.push_back(event.name.empty() ? type : event.name);
    read.data.push_back(std::move(data));
  });
  return read;
}

/// A request of the API under `path` with one user's message.
inline std::string ask(std::string_view path, const std::string& text, bool stream = false,
                       const std::string& model = "gpt-4") {
  Json body = Json::object({{"model", model}});
  if (path.ends_with("/responses")) {
    body.set("input", text);
  } else {
    const Json message = Json::object({{"role", "user"}, {"content", text}});
    body.set("messages", Json(Json::Array{message}));
  }
  if (path.ends_with("/messages")) body.set("max_tokens", 100);
  if (stream) body.set("stream", true);
  return body.dump();
}

/// A started server. `entries` and `drills` are JSON arrays.
struct Replay {
  explicit Replay(std::string_view entries, std::string_view drills = "[]")
      : server(llm::Cassette::parse(R"({"version":1,"entries":)" + std::string(entries) +
                                    R"(,"drills":)" + std::string(drills) + "}")) {
    server.start();
  }
  std::string url(const std::string& path) const {
    const std::string endpoint = server.url();
    return endpoint.substr(0, endpoint.size() - 3) + path;
  }
  net::HttpResponse post(const std::string& path, const std::string& text,
                         const std::string& model = "gpt-4") const {
    return send("POST", url(path), ask(path, text, false, model));
  }
  Streamed stream(const std::string& path, const std::string& text) const {
    return read_stream(url(path), ask(path, text, true));
  }
  llm::ReplayServer server;
};

inline const std::vector<std::string> kModelPaths = {"/v1/chat/completions", "/v1/responses",
                                                     "/v1/messages"};

}  // namespace necrocode::test
