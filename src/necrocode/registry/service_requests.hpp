// What the Task Registry's calls take: the readers of their bodies and queries, which are also what
// /openapi.json describes them by. Defects go to the reader; nothing is changed here.
#pragma once

#include "necrocode/net/request_fields.hpp"
#include "necrocode/registry/task_store.hpp"

namespace necrocode::registry {

/// What a lease's token is when the body has none: the header X-Lease-Token.
LeaseToken lease_token_of(const LeaseToken& in_body, const net::Request& request);

StatusChange read_status_change(JsonFields& fields);
/// `now`: for what says no time.
NewEvent read_new_event(JsonFields& fields, SystemTime now);
NewArtifact read_new_artifact(JsonFields& fields, SystemTime now);
Submission read_submission(JsonFields& fields);
ClaimRequest read_claim(JsonFields& fields);
LeaseToken read_heartbeat(JsonFields& fields);
std::vector<LeaseRef> read_heartbeats(JsonFields& fields);
struct CompletionRequest {
  Completion completion;
  NextClaim next;
};
CompletionRequest read_completion(JsonFields& fields, SystemTime now);
/// Why, for people.
std::string read_cancellation(JsonFields& fields);

TaskPatch read_patch(JsonFields& fields);
struct Parking {
  SystemTime until;
  std::string reason;
};
Parking read_parking(JsonFields& fields);

TaskQuery read_task_query(net::QueryFields& query);
EventQuery read_event_query(net::QueryFields& query);
struct TasksetQuery {
  std::string cursor;
  int limit = 0;
};
TasksetQuery read_taskset_query(net::QueryFields& query);
enum class GraphFormat { kJson, kDot, kMermaid };
GraphFormat read_graph_format(net::QueryFields& query);

}  // namespace necrocode::registry
