// The subcommands: each file declares one on the command line and runs it.
#pragma once

#include "cli.hpp"

namespace necrocode::app {

void declare_demo(Cli& cli);
void declare_serve(Cli& cli);
void declare_run(Cli& cli);
void declare_exec(Cli& cli);
void declare_worker(Cli& cli);
void declare_task(Cli& cli);
// Below `task`:
void declare_task_files(Cli& task);
void declare_task_lists(Cli& task);
void declare_task_pages(Cli& task);
void declare_task_watch(Cli& task);
void declare_task_providers(Cli& task);
void declare_pool(Cli& cli);
void declare_artifact(Cli& cli);
void declare_llm(Cli& cli);
// Below `llm`:
void declare_llm_proxy(Cli& llm);
void declare_llm_replay(Cli& llm);
void declare_health(Cli& cli);
void declare_verify(Cli& cli);
void declare_config(Cli& cli);
void declare_backup(Cli& cli);

}  // namespace necrocode::app
