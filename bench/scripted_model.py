#!/usr/bin/env python3
"""scripted_model.py FILE TEXT LOG

A model service on a free loopback port, whose one idea is to write TEXT into FILE. It speaks what the programs
measured by scripts/bench speak: Chat Completions, whole and streamed, and the streamed Responses API. Asked without
tools it answers with necrocode's code changes; asked with tools it calls the one that writes, and after that it ends
its turn. The first part of the path says how it behaves:
  /answer/v1      at once
  /hold/v1        once somebody has asked for GET /release
  /401/v1         with this status and an error, likewise any other
  /reset/v1       with a reset connection
  /html/v1        with a web page, status 200
  /silence/v1     never
Its first line says where it listens. Each request is a line in LOG: when it had arrived (seconds since 1970), its
path, its size and its body.
"""
import json
import shlex
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Script:
    def __init__(self, file, text):
        changes = [{"file_path": file, "operation": "create", "content": text, "edits": None, "diff": None}]
        self.changes = json.dumps({"code_changes": changes, "explanation": "Adds it."})
        shell = f"printf %s {shlex.quote(text)} >{shlex.quote(file)}"
        self.tools = {"write": {"path": file, "content": text}, "exec_command": {"cmd": shell}}

    def tool(self, offered):
        """The call that makes the change with one of these tools, as its name and arguments."""
        name = next(name for name in self.tools if name in offered)
        return name, json.dumps(self.tools[name])


USAGE = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}


def chat_answer(script, question):
    """The message of an answer, and why it ends."""
    tools = [tool["function"]["name"] for tool in question.get("tools", [])]
    if not tools:
        return {"role": "assistant", "content": script.changes}, "stop"
    if question["messages"][-1]["role"] == "tool":
        return {"role": "assistant", "content": "Done."}, "stop"
    name, arguments = script.tool(tools)
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"


def chat(script, question):
    """The body of the answer, or the events of a streamed one."""
    message, reason = chat_answer(script, question)
    head = {"id": "chatcmpl-1", "created": 1, "model": question["model"]}
    if not question.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return json.dumps(head | {"object": "chat.completion", "choices": [choice], "usage": USAGE})
    head["object"] = "chat.completion.chunk"
    chunks = [{"choices": [{"index": 0, "delta": message, "finish_reason": None}]},
              {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
              {"choices": [], "usage": USAGE}]
    return [f"data: {json.dumps(head | chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]


def responses(script, question):
    """The events of a streamed answer, the least that says it."""
    if any(item["type"] == "function_call_output" for item in question["input"]):
        item = {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
                "content": [{"type": "output_text", "text": "Done.", "annotations": []}]}
    else:
        name, arguments = script.tool([tool.get("name") for tool in question["tools"]])
        item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "status": "completed",
                "name": name, "arguments": arguments}
    usage = {"input_tokens": 1000, "input_tokens_details": None, "output_tokens": 50,
             "output_tokens_details": None, "total_tokens": 1050}
    answer = {"id": "resp_1", "object": "response", "model": question["model"]}
    events = [{"type": "response.created", "response": answer | {"status": "in_progress", "output": []}},
              {"type": "response.output_item.done", "output_index": 0, "item": item},
              {"type": "response.completed",
               "response": answer | {"status": "completed", "output": [item], "usage": usage}}]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]


class Model(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True

    def __init__(self, script, log):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.log = log
        self.writing = threading.Lock()
        self.released = threading.Event()

    def note(self, arrived, path, body):
        call = {"arrived": arrived, "path": path, "bytes": len(body), "body": body.decode()}
        with self.writing:
            print(json.dumps(call), file=self.log, flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # what is sent at once is written at once

    def do_GET(self):
        self.server.released.set()
        self.answer(200, "text/plain", "released\n")

    def do_POST(self):
        arrived = time.time()  # its head is read
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.note(arrived, self.path, body)
        behaviour = self.path.split("/")[1]
        if behaviour.isdigit():
            message = {"error": {"message": "as the script says", "type": "scripted", "code": None}}
            self.answer(int(behaviour), "application/json", json.dumps(message))
        elif behaviour == "html":
            self.answer(200, "text/html", "<!DOCTYPE html><html><body>Sign in to go on</body></html>")
        elif behaviour == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif behaviour == "silence":
            self.connection.recv(1)  # until the other side has enough
            self.close_connection = True
        else:
            if behaviour == "hold":
                self.server.released.wait()
            speak = responses if self.path.endswith("/responses") else chat
            self.tell(speak(self.server.script, json.loads(body)))

    def tell(self, answer):
        if isinstance(answer, str):
            self.answer(200, "application/json", answer)
        else:
            self.answer(200, "text/event-stream", "".join(answer))

    def answer(self, status, kind, text):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    with open(sys.argv[3], "a", encoding="utf-8") as told:
        model = Model(Script(sys.argv[1], sys.argv[2]), told)
        print(f"http://127.0.0.1:{model.server_port}", flush=True)
        model.serve_forever()
