// LogFeeds: answers that go on with a log until it is sealed. No byte is kept here: news only tell
// a feed to look into the store.
#pragma once

#include <chrono>
#include <memory>
#include <optional>

#include "necrocode/artifacts/artifact_store.hpp"
#include "necrocode/net/http_server.hpp"

namespace necrocode::artifacts {

/// Open at once, beside which there are other connections.
inline constexpr std::size_t kLogFeeds = 1000;

/// Thread-safe. `store` lives longer, and than every body that open() has made.
class LogFeeds {
 public:
  explicit LogFeeds(ArtifactStore& store);

  /// The bytes from `offset` on, and then what is appended: until the log is sealed, or for
  /// `silence` nothing was appended. It is cut off, without its end, when the log is removed or
  /// replaced. Throws HttpError 503 beyond kLogFeeds.
  std::shared_ptr<net::FeedBody> open(const ArtifactId& id, std::uint64_t offset,
                                      std::optional<std::chrono::seconds> silence);

 private:
  struct State;
  std::shared_ptr<State> state_;
  ArtifactStore& store_;
};

}  // namespace necrocode::artifacts
