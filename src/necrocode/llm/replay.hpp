// ReplayServer: answers OpenAI's Chat Completions and Responses and Anthropic's Messages from a
// cassette, over real HTTP, for the demo, the tests and drills. It invents nothing: what no entry
// matches is a 400 that names the nearest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "necrocode/llm/cassette.hpp"
#include "necrocode/net/http_server.hpp"

namespace necrocode::llm {

/// One answer that was given.
struct ReplayRecord {
  std::size_t entry = 0;  ///< its index in the cassette
  std::string model;      ///< as the request named it
  std::int64_t time = 0;  ///< the entry's how-manieth answer this was, from 1; 0 of a drill
  std::string drill{};    ///< of the rule that took the entry's place; empty: none did
};

/// POST to model_routes(), whole and with "stream": true; GET /v1/models, GET /health. Any API key
/// is taken, and whatever else a request asks for (tools, schemas, temperatures) is accepted.
/// Errors have the shape of the API that was asked. Thread-safe.
class ReplayServer {
 public:
  explicit ReplayServer(Cassette cassette, net::HttpServerOptions options = {});
  ~ReplayServer();  ///< stop()
  ReplayServer(const ReplayServer&) = delete;
  ReplayServer& operator=(const ReplayServer&) = delete;

  /// Throws ConfigError when the address cannot be bound.
  void start();
  /// Safe to call twice. Stalled answers end with 503.
  void stop();
  /// http://127.0.0.1:PORT/v1, what LLMConfig::endpoint takes.
  std::string url() const;
  /// What was answered, in order; the newest limits::kReplayRecords.
  std::vector<ReplayRecord> served() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace necrocode::llm
