// EventFeeds: open feeds of events (text/event-stream), each of which goes on where its reader
// stopped. No event is kept here: news only tell a feed to look into the store.
#pragma once

#include <memory>

#include "necrocode/net/http_server.hpp"
#include "necrocode/registry/task_store.hpp"

namespace necrocode::registry {

/// Thread-safe. `store` lives longer, and than every answer that open() has made.
class EventFeeds {
 public:
  explicit EventFeeds(TaskStore& store);

  /// The events that `query` selects, from after `query.after` on, and each new one; each with its
  /// id, the event as JSON as data, and no name, so that one listener gets all. Throws NotFound,
  /// Conflict for an unknown or ambiguous task, HttpError 503 beyond limits::kEventFeeds.
  net::Response open(EventQuery query);

 private:
  struct State;
  std::shared_ptr<State> state_;
  TaskStore& store_;
};

}  // namespace necrocode::registry
