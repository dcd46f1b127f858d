// ReplayServer: answers OpenAI's Chat Completions from a cassette, over real HTTP, for the demo,
// the tests and drills. It invents nothing: what no entry matches is a 400 that names the nearest.
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
  std::int64_t time = 0;  ///< the entry's how-manieth answer this was, from 1
};

/// POST /v1/chat/completions (non-streaming), GET /v1/models, GET /health. Any API key is taken.
/// Errors have OpenAI's shape: {"error": {"message", "type", "param", "code"}}. Thread-safe.
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
