// clients SERVICES_URL MODEL_URL REPO_URL: the four clients of necrocode, one after the other.
//
//   necrocode serve --listen 127.0.0.1:8000
//   necrocode llm serve-replay examples/clients-cassette.json --listen 127.0.0.1:8001
//   clients http://127.0.0.1:8000 http://127.0.0.1:8001/v1 file:///path/to/repository.git
//
// SERVICES_URL serves registry, pool and artifact store; MODEL_URL is any OpenAI-compatible service
// (its key, if it wants one, is read from OPENAI_API_KEY). Prints what it did; exits with 1, and
// says which call failed and why, when one does.
#include <cstdlib>
#include <iostream>
#include <necrocode/agent_runner.hpp>

namespace {

using namespace necrocode;

// A task, its states and its history.
void registry_example(TaskRegistryClient& registry) {
  const Json taskset = Json::object({
      {"spec_name", "example"},
      {"tasks", Json::Array{Json::object({{"id", "1.1"}, {"title", "Say hello"}})}},
  });
  registry.submit(taskset);
  registry.update_task_status("example:1.1", "in_progress", Json::object({{"by", "clients"}}));
  registry.add_event("example:1.1", "TaskProgress", Json::object({{"percent", 50}}));
  const registry::Task task = registry.get_task("example:1.1");
  std::cout << "registry   " << task.id << " is " << registry::to_string(task.state) << ", with "
            << registry.events({.task_id = task.id}).items.size() << " events\n";
}

// A language model: a plain question, then code changes.
void llm_example(const std::string& endpoint) {
  LLMConfig config;
  config.endpoint = endpoint;
  config.model = "replay";
  if (const char* key = std::getenv("OPENAI_API_KEY")) config.api_key = Secret(key);
  LLMClient llm(std::move(config));

  ChatRequest question;
  question.messages = {{"user", "Answer with one word: hello"}};
  std::cout << "llm        said \"";
  const auto show = [](const llm::ChatDelta& delta) {
    if (delta.kind == llm::ChatDelta::Kind::kText) std::cout << delta.text << std::flush;
  };
  const ChatResponse answer = llm.stream(question, show);  // chat() waits for the whole
  std::cout << "\" for " << answer.usage.total_tokens << " tokens\n";

  const LLMResponse change = llm.generate_code("Create hello.txt with a greeting.");
  std::cout << "llm        wants to " << llm::to_string(change.code_changes.at(0).operation) << ' '
            << change.code_changes.at(0).file_path << '\n';
}

// A file kept with its digest, and recorded at its task.
void artifact_example(ArtifactStoreClient& artifacts, TaskRegistryClient& registry) {
  const std::string text = "what happened\n";
  const Json metadata = Json::object({{"task_id", "example:1.1"}, {"name", "example.log"}});
  const std::string uri = artifacts.upload_text("log", text, metadata);
  registry.add_artifact("example:1.1", "log", uri, static_cast<std::int64_t>(text.size()));
  const bool same = artifacts.download_text(uri) == text;
  std::cout << "artifacts  " << artifacts.get_metadata(uri).size_bytes << " bytes came back "
            << (same ? "unchanged" : "changed") << '\n';
  if (!same) throw InvalidResponse("the artifact differs from what was uploaded");
}

// A clean work tree of one's own, as long as the lease lasts.
void pool_example(RepoPoolClient& pool, const std::string& repo_url) {
  const SlotAllocation slot = pool.allocate_slot(repo_url, "example:1.1");
  std::cout << "pool       " << slot.slot_id.value << " is at " << slot.commit.substr(0, 12)
            << '\n';
  pool.release_slot(slot.slot_id, slot.lease_token);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: clients SERVICES_URL MODEL_URL REPO_URL\n";
    return 2;
  }
  try {
    TaskRegistryClient registry(argv[1]);
    RepoPoolClient pool(argv[1]);
    ArtifactStoreClient artifacts(argv[1]);
    registry_example(registry);
    llm_example(argv[2]);
    artifact_example(artifacts, registry);
    pool_example(pool, argv[3]);
    registry.update_task_status("example:1.1", "done");
    std::cout << "registry   example:1.1 is done\n";
  } catch (const RunnerError& error) {
    std::cerr << "clients: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
