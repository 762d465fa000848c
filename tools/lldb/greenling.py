"""Green threads of greenling in lldb, in a live process and in a core file.

    (lldb) command script import tools/lldb/greenling.py
    (lldb) green                all green threads and greenlets: id, name, what each waits for, where it was spawned;
                                of a hub with very many, those that do the same in one line, unless `green list` asks
    (lldb) green 17             #17 becomes one of lldb's threads, and is selected: now `bt`, `up`, `frame variable`,
                                `register read` are about it
    (lldb) green 17 bt          any command, seen from #17
    (lldb) green all            all become threads of lldb's: `thread list`, `thread select`, `bt all`
    (lldb) green all bt         a command, seen from each
    (lldb) green off            back to what the OS threads do

A thread is named by its id, by hub and id (`2.17`) if there are several hubs, or by its name. A green thread of which
another one makes use as a deputy, and one that runs, are frames of an OS thread.

How it works. `../green_threads.py` reads green threads from raw memory. This file is also what lldb calls a plugin for
operating systems: it tells lldb of threads that no OS thread runs, with the registers that each has saved. Nothing is
ever written, so the program goes on as if nothing had been looked at, and a core file will do. The threads go when the
program runs.

Debian's lldb does not find its own Python modules: PYTHONPATH=/usr/lib/llvm-14/lib/python3.11/dist-packages lldb ..
"""

import os
import re
import struct
import sys
import time

import lldb

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import green_threads
from green_threads import FINISHED, Trouble, find, hubs, listing, processor

# The most fibers of a hub that `green` lists one by one.
MOST = 200

# Identities of threads that are told to lldb: those of the kernel are smaller.
FIRST = 1 << 32

# For each processor: the registers, by their DWARF numbers.
X86 = "rax rdx rcx rbx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip".split()
ARM = ["x%d" % number for number in range(29)] + ["fp", "lr", "sp", "pc"]
GENERIC = {"rip": "pc", "rsp": "sp", "rbp": "fp", "pc": "pc", "sp": "sp", "fp": "fp", "lr": "ra"}


class Target:
    """What the shared module asks of lldb."""

    def __init__(self, process):
        self.process, self.target = process, process.GetTarget()

    def architecture(self):
        return self.target.GetTriple().split("-")[0].replace("x86_64", "x86-64")

    def read(self, address, size):
        error = lldb.SBError()
        memory = self.process.ReadMemory(address, size, error) if size else b""
        if not error.Success() or memory is None or len(memory) != size:
            raise Trouble("green: no memory at %#x" % address)
        return memory

    def threads(self):
        return [thread for thread in self.process if thread.GetThreadID() < FIRST]

    def number(self, thread):
        return thread.GetThreadID()

    def is_valid(self, thread):
        return thread.IsValid()

    def stack_pointers(self, thread):
        return [thread.GetFrameAtIndex(index).GetSP() for index in range(min(thread.GetNumFrames(), 64))]

    def register(self, thread, name):
        return thread.GetFrameAtIndex(0).FindRegister(name).GetValueAsUnsigned()

    def now(self):
        return None if "core" in self.process.GetPluginName() else time.monotonic_ns()

    def tables(self):
        found = []
        answer = lldb.SBCommandReturnObject()
        self.target.GetDebugger().GetCommandInterpreter().HandleCommand("image lookup -r -s GREENLING_DEBUG", answer)
        for name, address in re.findall(r"Address: (.*?)\[(0x[0-9a-f]+)\]", answer.GetOutput() or ""):
            for module in self.target.module_iter():
                if module.GetFileSpec().GetFilename() == name:
                    place = module.ResolveFileAddress(int(address, 16))
                    found.append(place.GetLoadAddress(self.target))
        return found


class OperatingSystemPlugIn:
    """Tells lldb of the green threads in view."""

    def __init__(self, process):
        self.process = process
        self.names = ARM if "aarch64" in process.GetTarget().GetTriple() else X86

    def in_view(self):
        return green_threads.view if green_threads.view_stop == stop_of(self.process) else []

    def create_thread(self, tid, context):
        return None

    def get_thread_info(self):
        return [
            {"tid": tid, "name": name, "queue": "green", "state": "stopped", "stop_reason": "none"}
            for tid, name, _ in self.in_view()
        ]

    def get_register_info(self):
        registers = []
        for number, name in enumerate(self.names):
            register = {
                "name": name, "bitsize": 64, "offset": 8 * number, "encoding": "uint", "format": "hex", "set": 0,
                "gcc": number, "dwarf": number,
            }
            if name in GENERIC:
                register["generic"] = GENERIC[name]
            registers.append(register)
        return {"sets": ["General Purpose Registers"], "registers": registers}

    def get_register_data(self, tid):
        saved = next((registers for number, _, registers in self.in_view() if number == tid), {})
        values = [saved.get("x29" if name == "fp" else name, 0) for name in self.names]
        return struct.pack("<%dQ" % len(values), *values)


def stop_of(process):
    """What tells one stop of one process from all others."""
    return process.GetUniqueID(), process.GetStopID()


class Command:
    """One call of `green`."""

    def __init__(self, debugger, result):
        self.debugger, self.result = debugger, result
        self.process = debugger.GetSelectedTarget().GetProcess()
        if not self.process.IsValid() or self.process.GetState() not in (lldb.eStateStopped, lldb.eStateSuspended):
            raise Trouble("green: there is no process that has stopped")
        green_threads.target = Target(self.process)

    def say(self, text):
        self.result.AppendMessage(text)

    def answer(self, argument):
        who, _, command = argument.strip().partition(" ")
        command = command.strip()
        if who in ("", "list"):
            seen = self.process.GetSelectedThread().GetThreadID()
            for line in listing(MOST if not who else None, lambda fiber: tid_of(fiber) == seen):
                self.say(line)
        elif who == "off":
            self.set_view([])
        elif who == "all":
            self.each(command)
        else:
            # The hub of the selected OS thread goes first.
            here = self.process.GetSelectedThread().GetThreadID()
            fiber = find(who, hubs(), lambda thread: thread.GetThreadID() == here)
            self.run_in(fiber, command) if command else self.show(fiber)

    def set_view(self, fibers):
        """Makes these fibers lldb's threads, and no others."""
        selected = self.process.GetSelectedThread().GetThreadID()
        if selected >= FIRST and selected not in map(tid_of, fibers):
            selected = next(hub.os_thread for hub in hubs() if hub.number == selected // FIRST)
            self.process.SetSelectedThreadByID(selected)
        green_threads.view = [(tid_of(fiber), fiber.label(), fiber.registers()) for fiber in fibers]
        green_threads.view_stop = stop_of(self.process)
        for _, _, registers in green_threads.view:
            self.unwind_by_table(registers[processor()[0]])
        # Setting the plugin, also the same one again, makes lldb ask for all threads.
        self.run("settings set target.process.python-os-plugin-path '%s'" % os.path.abspath(__file__))
        self.process.GetNumThreads()
        self.process.SetSelectedThreadByID(selected)

    def unwind_by_table(self, pc):
        """Makes lldb unwind the function at `pc` by its table. For an innermost frame lldb goes by the instructions, and
        does not understand those of a switch, unless the function is a handler of signals."""
        address = self.process.GetTarget().ResolveLoadAddress(pc)
        for name in (address.GetSymbol().GetName(), address.GetFunction().GetName()):
            if name and '"' not in name and name not in green_threads.by_table:
                green_threads.by_table.add(name)
                self.run('settings append target.trap-handler-names "%s"' % name)

    def select(self, fiber):
        """Selects the thread that shows a fiber; says what is to be said of one that cannot be shown, and returns
        whether it can."""
        if fiber.hub.thread is None:
            raise Trouble("green: the OS thread %d of %s is not here" % (fiber.hub.os_thread, fiber.label()))
        if fiber.hub.running is fiber:
            return self.process.SetSelectedThreadByID(fiber.hub.os_thread)
        if fiber.registers() is None:
            self.say("%s has not run yet: it has no frames" % fiber.label())
            return False
        shown = {tid for tid, _, _ in green_threads.view} if green_threads.view_stop == stop_of(self.process) else set()
        if tid_of(fiber) not in shown:
            others = [other for hub in hubs() for other in hub.fibers if tid_of(other) in shown]
            self.set_view(others + [fiber])
        if not self.process.SetSelectedThreadByID(tid_of(fiber)):
            raise Trouble("green: lldb does not take %s for a thread" % fiber.label())
        return True

    def show(self, fiber):
        if self.select(fiber):
            self.say("%s %s" % (fiber.label(), fiber.describe()))
            self.say(self.run("frame info").rstrip())

    def run_in(self, fiber, command):
        before = self.process.GetSelectedThread().GetThreadID()
        try:
            if self.select(fiber):
                self.say(self.run(command).rstrip())
        finally:
            self.process.SetSelectedThreadByID(before)

    def each(self, command):
        fibers = [fiber for hub in hubs() for fiber in hub.fibers if fiber.state != FINISHED]
        can_be_seen = [
            fiber for fiber in fibers if fiber.hub.thread and fiber.hub.running is not fiber and fiber.registers()
        ]
        self.set_view(can_be_seen)
        for fiber in fibers if command else []:
            self.say("\n%s %s" % (fiber.label(), fiber.describe()))
            try:
                self.run_in(fiber, command)
            except Trouble as trouble:
                self.say(str(trouble))

    def run(self, command):
        """Runs a command of lldb's where the selected thread and frame are now; returns what it prints."""
        answer = lldb.SBCommandReturnObject()
        thread = self.process.GetSelectedThread()
        here = lldb.SBExecutionContext(thread.GetSelectedFrame() if thread.GetNumFrames() else thread)
        self.debugger.GetCommandInterpreter().HandleCommand(command, here, answer)
        return (answer.GetOutput() or "") + (answer.GetError() or "")


def tid_of(fiber):
    return FIRST * fiber.hub.number + fiber.id


def green(debugger, argument, result, _):
    """Green threads: `green` lists them, `green list` each of very many, `green ID` shows one, `green ID COMMAND` runs a
command there, `green all [COMMAND]` shows all, `green off` none. ID is an id, HUB.ID or a name."""
    try:
        Command(debugger, result).answer(argument)
    except Trouble as trouble:
        result.SetError(str(trouble))


def __lldb_init_module(debugger, _):
    # lldb loads this file again, as a plugin.
    if debugger.GetID() not in green_threads.debuggers:
        green_threads.debuggers.add(debugger.GetID())
        debugger.HandleCommand("command script add -f %s.green green" % __name__)
