#include "necrocode/registry/sqlite_queries.hpp"

#include <algorithm>
#include <set>

#include "necrocode/base/base64.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode::registry {
namespace {

/// A query's text with the values for its parameters, in step with each other.
class Where {
 public:
  void add(const std::string& condition, std::vector<Json> values) {
    text_ += (text_.empty() ? " WHERE " : " AND ") + condition;
    values_.insert(values_.end(), values.begin(), values.end());
  }
  const std::string& text() const { return text_; }
  void bind(db::Statement& statement) const {
    for (const Json& value : values_) {
      if (const auto number = value.as_int()) {
        statement.bind(*number);
      } else {
        statement.bind(value.string_or(""));
      }
    }
  }

 private:
  std::string text_;
  std::vector<Json> values_;
};

[[noreturn]] void refuse(const std::string& parameter, const std::string& message) {
  ErrorInfo info;
  info.fields.push_back({"/" + parameter, message});
  throw TaskContextValidationError("invalid query", std::move(info));
}

/// An order of tasks: what it sorts by, and how a cursor continues after a row. Each of `after`'s
/// first conditions is one that an index finds the place by.
struct Order {
  std::string_view name;
  const char* order_by;
  const char* after;
  std::string_view uses;     ///< which of the cursor's values its parameters are
  std::string_view columns;  ///< the cursor's types: s a string, i an integer
};
constexpr Order kOrders[] = {{"number", "s.name, t.number_key, t.seq",
                              "(s.name, t.number_key, t.seq) > (?, ?, ?)", "012", "ssi"},
                             {"priority", "t.priority DESC, t.seq",
                              "t.priority <= ? AND (t.priority < ? OR t.seq > ?)", "001", "ii"},
                             {"age", "t.seq", "t.seq > ?", "0", "i"}};
/// By number within one spec, with the same cursors.
constexpr Order kNumberInSpec = {"number", "t.number_key, t.seq", "(t.number_key, t.seq) > (?, ?)",
                                 "12", "ssi"};

const Order& order_for(const TaskQuery& query) {
  if (query.sort == kNumberInSpec.name && !query.spec.empty()) return kNumberInSpec;
  for (const Order& order : kOrders) {
    if (order.name == query.sort) return order;
  }
  refuse("sort", "must be number, priority or age");
}

/// True for what cursor_after() wrote: the order's name and a value of each column's type.
bool is_cursor_of(const Order& order, const Json::Array& values) {
  if (values.size() != order.columns.size() + 1 || values[0] != Json(order.name)) return false;
  return std::equal(order.columns.begin(), order.columns.end(), values.begin() + 1,
                    [](char type, const Json& value) {
                      return type == 's' ? value.is_string() : value.is_int();
                    });
}

Json::Array read_cursor(const Order& order, const std::string& cursor) {
  const auto text = base64_decode(cursor);
  const Json::Array values = Json::try_parse(text.value_or("")).value_or(Json()).items();
  if (!is_cursor_of(order, values)) refuse("cursor", "is not one that this query gave");
  return Json::Array(values.begin() + 1, values.end());
}

/// `%` and `_` in what people search for mean themselves.
std::string like_pattern(const std::string& text) {
  return "%" + replace_all(replace_all(replace_all(text, "\\", "\\\\"), "%", "\\%"), "_", "\\_") +
         "%";
}

Where conditions_of(const TaskQuery& query) {
  Where where;
  if (!query.spec.empty()) where.add("s.name = ?", {query.spec});
  if (!query.states.empty()) {
    std::vector<std::string> numbers;
    for (const TaskState state : query.states)
      numbers.push_back(std::to_string(static_cast<int>(state)));
    where.add("t.state IN (" + join(numbers, ",") + ")", {});
  }
  // Says to the index of failed and cancelled tasks that it has all of them.
  const auto ended_badly = [](TaskState state) { return state >= TaskState::kFailed; };
  if (!query.states.empty() && std::all_of(query.states.begin(), query.states.end(), ended_badly)) {
    where.add("t.state >= 4", {});
  }
  if (!query.skill.empty()) where.add("t.skill = ?", {query.skill});
  if (query.since) where.add("t.updated_ms >= ?", {to_unix_ms(*query.since)});
  if (query.until) where.add("t.updated_ms < ?", {to_unix_ms(*query.until)});
  if (!query.label.empty()) {
    where.add("EXISTS (SELECT 1 FROM json_each(f.fields, '$.labels') l WHERE l.value = ?)",
              {query.label});
  }
  if (!query.text.empty()) {
    const std::string pattern = like_pattern(query.text);
    where.add(
        "(json_extract(f.fields, '$.title') LIKE ? ESCAPE '\\' OR "
        "json_extract(f.fields, '$.description') LIKE ? ESCAPE '\\')",
        {pattern, pattern});
  }
  return where;
}

std::string cursor_after(const Order& order, const TaskRow& row) {
  Json cursor = Json::array();
  cursor.push_back(order.name);
  if (order.name == "number") {
    cursor.push_back(row.spec_name());
    cursor.push_back(natural_key(row.number()));
  } else if (order.name == "priority") {
    cursor.push_back(row.priority);
  }
  cursor.push_back(row.seq);
  return base64_encode(cursor.dump());
}

/// Adds the condition that the cursor stands for; false when nothing comes after it.
bool go_on_after(const TaskQuery& query, const Order& order, Where& where) {
  const Json::Array values = read_cursor(order, query.cursor);
  if (&order == &kNumberInSpec) {  // one of all specs' pages stands before or after this spec
    const std::string spec = values.front().string_or("");
    if (spec != query.spec) return spec < query.spec;
  }
  Json::Array used;
  for (const char place : order.uses) used.push_back(values[static_cast<std::size_t>(place - '0')]);
  where.add(order.after, std::move(used));
  return true;
}

/// Ends a page in time: after its items, or before one that would make it too large to be read.
class PageLimit {
 public:
  explicit PageLimit(int items, std::size_t bytes_max = limits::kPageBytes)
      : items_(items), bytes_max_(bytes_max) {}
  /// False when `bytes` more of stored text do not go into the page; the first item always does.
  bool take(std::size_t bytes) {
    bytes_ += bytes;
    ++taken_;
    return taken_ == 1 || (taken_ <= items_ && bytes_ <= bytes_max_);
  }

 private:
  int items_;
  std::size_t bytes_max_;
  int taken_ = 0;
  std::size_t bytes_ = 0;
};

std::string select_tasks() {
  return std::string("SELECT ") + kTaskColumns +
         " FROM tasks t JOIN task_fields f USING (seq) JOIN tasksets s USING (spec_id)";
}

Taskset read_taskset(const db::Statement& row) {
  Taskset taskset;
  taskset.spec_name = row.text(1);
  taskset.version = row.integer(2);
  taskset.metadata = Json::parse(row.text(3));
  taskset.created_at = from_unix_ms(row.integer(4));
  taskset.updated_at = from_unix_ms(row.integer(5));
  taskset.counts = Json::object();
  for (int state = 0; state < 6; ++state) {
    taskset.counts.set(to_string(static_cast<TaskState>(state)), row.integer(6 + state));
  }
  taskset.limits.max_running = static_cast<int>(row.integer(12));
  taskset.limits.budget_usd = static_cast<double>(row.integer(13)) / kMicros;
  taskset.limits.budget_tokens = row.integer(14);
  taskset.limits.unblock_on = static_cast<UnblockOn>(row.integer(15));
  taskset.spent_usd = static_cast<double>(row.integer(16)) / kMicros;
  taskset.spent_tokens = row.integer(17);
  return taskset;
}

constexpr const char* kSelectTasksets =
    "SELECT s.spec_id, s.name, s.version, s.metadata, s.created_ms, s.updated_ms, n.blocked, "
    "n.ready, n.running, n.done, n.failed, n.cancelled, n.max_running, n.budget_usd_micros, "
    "n.budget_tokens, n.unblock_on, n.spent_usd_micros, n.spent_tokens "
    "FROM tasksets s JOIN taskset_numbers n USING (spec_id)";

std::int64_t spec_id_of(db::Database& database, const std::string& spec) {
  db::Statement& query = database.prepare("SELECT spec_id FROM tasksets WHERE name = ?");
  if (!query.bind(spec).step()) throw_no_taskset(spec);
  const std::int64_t spec_id = query.integer(0);
  query.reset();
  return spec_id;
}

}  // namespace

TaskPage query_tasks(db::Database& database, const TaskQuery& query) {
  const Order& order = order_for(query);
  Where where = conditions_of(query);
  if (!query.cursor.empty() && !go_on_after(query, order, where)) return {};
  // Not cached: there are as many texts as there are combinations of filters.
  db::Statement statement(database, select_tasks() + where.text() + " ORDER BY " + order.order_by +
                                        " LIMIT " + std::to_string(query.limit + 1));
  where.bind(statement);
  TaskPage page;
  PageLimit limit(query.limit);
  std::string cursor;
  while (statement.step()) {
    const TaskRow row = read_row(statement);
    if (!limit.take(stored_bytes(database, row))) {
      page.next_cursor = cursor;
      break;
    }
    cursor = cursor_after(order, row);
    page.items.push_back(to_task(database, row));
  }
  return page;
}

Taskset query_taskset(db::Database& database, const std::string& spec, TasksetPart part) {
  static const std::string kQuery = std::string(kSelectTasksets) + " WHERE s.name = ?";
  db::Statement& query = database.prepare(kQuery);
  if (!query.bind(spec).step()) throw_no_taskset(spec);
  Taskset taskset = read_taskset(query);
  query.reset();
  taskset.head_only = part == TasksetPart::kHead;
  if (taskset.head_only) return taskset;
  TaskQuery of_spec;
  of_spec.spec = spec;
  of_spec.limit = static_cast<int>(limits::kTasksPerSubmit);
  TaskPage page = query_tasks(database, of_spec);
  taskset.tasks = std::move(page.items);
  taskset.next_cursor = std::move(page.next_cursor);
  return taskset;
}

std::map<TaskState, std::int64_t> query_counts(db::Database& database) {
  std::map<TaskState, std::int64_t> counts;
  db::Statement& query = database.prepare(
      "SELECT total(blocked), total(ready), total(running), total(done), total(failed), "
      "total(cancelled) FROM taskset_numbers");
  while (query.step()) {
    for (const TaskState state : kTaskStates)
      counts[state] = query.integer(static_cast<int>(state));
  }
  return counts;
}

TasksetPage query_tasksets(db::Database& database, const std::string& cursor, int limit) {
  db::Statement query(database,
                      std::string(kSelectTasksets) + " WHERE s.name > ? ORDER BY s.name LIMIT ?");
  query.bind(cursor).bind(limit + 1);
  TasksetPage page;
  while (query.step()) {
    page.items.push_back(read_taskset(query));
    page.items.back().head_only = true;
  }
  if (static_cast<int>(page.items.size()) > limit) {
    page.items.pop_back();
    page.next_cursor = page.items.back().spec_name;
  }
  return page;
}

EventPage query_events(db::Database& database, const EventQuery& query) {
  Where where;
  where.add("id > ?", {query.after});
  if (!query.task_id.empty()) {
    where.add("task_seq = ?", {load_row(database, query.task_id).seq});
  }
  if (!query.spec.empty()) {
    where.add("spec_id = (SELECT spec_id FROM tasksets WHERE name = ?)", {query.spec});
  }
  if (!query.type.empty()) where.add("event_type = ?", {query.type});
  if (query.since) where.add("recorded_ms >= ?", {to_unix_ms(*query.since)});
  if (query.until) where.add("recorded_ms < ?", {to_unix_ms(*query.until)});
  db::Statement statement(
      database,
      "SELECT id, task_id, event_type, data, timestamp_ms, recorded_ms, attempt FROM events" +
          where.text() + " ORDER BY id LIMIT " + std::to_string(query.limit + 1));
  where.bind(statement);
  EventPage page;
  PageLimit limit(query.limit, query.bytes_max);
  while (statement.step()) {
    const std::string data = statement.text(3);
    if (!limit.take(data.size())) {
      page.next_cursor = std::to_string(page.items.back().id);
      break;
    }
    Event& event = page.items.emplace_back();
    event.id = statement.integer(0);
    event.task_id = statement.text(1);
    event.event_type = statement.text(2);
    event.data = Json::parse(data);
    event.timestamp = from_unix_ms(statement.integer(4));
    event.recorded_at = from_unix_ms(statement.integer(5));
    event.attempt = static_cast<int>(statement.integer(6));
  }
  return page;
}

std::vector<AttemptRecord> query_attempts(db::Database& database, const std::string& task_id) {
  return load_attempts(database, load_row(database, task_id).seq, AttemptsWanted::kAll);
}

std::int64_t query_newest_event(db::Database& database) {
  db::Statement& query = database.prepare("SELECT coalesce(max(id), 0) FROM events");
  std::int64_t newest = 0;
  while (query.step()) newest = query.integer(0);  // to its end, or its snapshot stays open
  return newest;
}

TaskGraph query_graph(db::Database& database, const std::string& spec) {
  const std::int64_t spec_id = spec_id_of(database, spec);
  TaskGraph graph;
  graph.spec_name = spec;
  db::Statement nodes(database,
                      "SELECT t.id, coalesce(json_extract(f.fields, '$.title'), ''), t.state "
                      "FROM tasks t JOIN task_fields f USING (seq) WHERE t.spec_id = ? "
                      "ORDER BY t.number_key, t.seq");
  nodes.bind(spec_id);
  while (nodes.step()) {
    graph.nodes.push_back(
        {nodes.text(0), nodes.text(1), static_cast<TaskState>(nodes.integer(2)), false});
  }
  db::Statement edges(database,
                      "SELECT p.id, c.id, p.spec_id, p.state, "
                      "coalesce(json_extract(f.fields, '$.title'), ''), d.policy "
                      "FROM tasks c JOIN dependencies d ON d.child = c.seq "
                      "JOIN tasks p ON p.seq = d.parent JOIN task_fields f ON f.seq = p.seq "
                      "WHERE c.spec_id = ? ORDER BY c.number_key, c.seq, p.number_key, p.seq");
  edges.bind(spec_id);
  std::set<std::string> external;
  while (edges.step()) {
    graph.edges.push_back(
        {edges.text(0), edges.text(1), static_cast<DependencyPolicy>(edges.integer(5))});
    if (edges.integer(2) != spec_id && external.insert(edges.text(0)).second) {
      graph.nodes.push_back(
          {edges.text(0), edges.text(4), static_cast<TaskState>(edges.integer(3)), true});
    }
  }
  return graph;
}

}  // namespace necrocode::registry
