"""Green threads of greenling in gdb, in a live process and in a core file.

    (gdb) source tools/gdb/greenling.py
    (gdb) green                 all green threads and greenlets: id, name, what each waits for, where it was spawned;
                                of a hub with very many, those that do the same in one line, unless `green list` asks
    (gdb) green 17              gdb's view goes to #17: now `bt`, `up`, `info locals`, `info registers` are about it
    (gdb) green 17 bt           any command, seen from #17
    (gdb) green all bt          the same for each
    (gdb) green off             back to what the OS thread does
    (gdb) green gcore FILE      a core file with the stacks of green threads, which gdb's own `gcore` leaves out where
                                the kernel makes guards without mappings (Linux 6.13): it gives up at the first guard
    (gdb) green tls NAME        a thread-local variable of the thread in view, which may have its own
    (gdb) green 17 tls NAME     the same, of #17

A thread is named by its id, by hub and id (`2.17`) if there are several hubs, or by its name.

How it works. `../green_threads.py` reads green threads from raw memory. No register and no memory is ever written, so the
program goes on as if nothing had been looked at, and a core file will do: a thread comes into view by an *unwinder*, which tells gdb that the frame of the OS thread was called by the
innermost frame of the green thread. So frame 0 stays that of the OS thread, and the thread's own begin at 1.
"""

import os
import struct
import sys
import time

import gdb
from gdb.unwinder import Unwinder, register_unwinder

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import green_threads
from green_threads import FINISHED, Trouble, find, hubs, listing, processor, read, word

MEGABYTE = 1 << 20
PAGE = 4096

# The most fibers of a hub that `green` lists one by one.
MOST = 200


def unsigned(value):
    return int(value) & 0xffffffffffffffff


def in_thread(thread, do):
    """Calls `do` while `thread` and its innermost frame are selected."""
    before = gdb.selected_thread()
    frame = gdb.selected_frame() if before is not None else None
    try:
        thread.switch()
        return do()
    finally:
        if before is not None and before.is_valid():
            before.switch()
        if frame is not None and frame.is_valid():
            frame.select()


class Target:
    """What the shared module asks of gdb."""

    def architecture(self):
        return gdb.selected_inferior().architecture().name()

    def read(self, address, size):
        try:
            return bytes(gdb.selected_inferior().read_memory(address, size))
        except gdb.MemoryError:
            raise Trouble("green: no memory at %#x" % address)

    def threads(self):
        return gdb.selected_inferior().threads()

    def number(self, thread):
        return thread.ptid[1]

    def is_valid(self, thread):
        return thread.is_valid()

    def stack_pointers(self, thread):
        return innermost_frames(thread)

    def register(self, thread, name):
        return in_thread(thread, lambda: unsigned(gdb.newest_frame().read_register(name)))

    def now(self):
        connection = gdb.selected_inferior().connection
        return time.monotonic_ns() if connection is not None and connection.type == "native" else None

    def tables(self):
        return tables()


def innermost_frames(thread):
    """The stack pointers of a thread's innermost frames, as long as they lie close together or a handler runs."""
    def walk():
        found, frame, sp = [], gdb.newest_frame(), processor()[1]
        while frame is not None and len(found) < 64:
            found.append(unsigned(frame.read_register(sp)))
            try:
                frame = frame.older()
            except gdb.error:
                break
        return found

    view, VIEW.fiber = VIEW.fiber, None
    try:
        gdb.invalidate_cached_frames()
        return in_thread(thread, walk)
    finally:
        VIEW.fiber = view
        gdb.invalidate_cached_frames()


def tables():
    """The addresses of the descriptors of the program; more than one if it has several copies of the crate."""
    found = []
    for line in gdb.execute("info variables -q GREENLING_DEBUG", to_string=True).splitlines():
        line = line.strip()
        if line.startswith("0x"):
            found.append(int(line.split()[0], 16))
        elif "GREENLING_DEBUG" in line:
            # With type information gdb says `12: static crate::path::GREENLING_DEBUG: type;`.
            name = line.split("static ", 1)[-1].split(": ")[0].replace("mut ", "")
            place = gdb.execute("info address " + name, to_string=True)
            found += [int(part.strip("."), 16) for part in place.split() if part.startswith("0x")]
    return found


class View(Unwinder):
    """Tells gdb that the innermost frame of an OS thread was called by that of the green thread in view."""

    def __init__(self):
        super().__init__("greenling")
        self.fiber = None

    def show(self, fiber):
        """Brings a suspended fiber into view; the OS thread of its hub is selected."""
        pc, sp = processor()[:2]
        self.fiber = None
        gdb.invalidate_cached_frames()
        fiber.hub.thread.switch()
        frame = gdb.newest_frame()
        self.real = unsigned(frame.read_register(sp)), unsigned(frame.read_register(pc))
        self.registers, self.thread = fiber.registers(), fiber.hub.thread.ptid
        self.fiber = fiber
        gdb.invalidate_cached_frames()
        frame = gdb.newest_frame()
        # Also inline functions are frames, of the same registers.
        while frame is not None and unsigned(frame.read_register(sp)) != self.registers[sp]:
            frame = frame.older()
        if frame is None:
            self.hide()
            raise Trouble("green: the frames of %s cannot be read" % fiber.label())
        frame.select()

    def hide(self):
        """Lets gdb see the OS thread again."""
        self.fiber = None
        gdb.invalidate_cached_frames()
        if gdb.selected_thread() is not None:
            gdb.newest_frame().select()

    def __call__(self, pending):
        if self.fiber is None or gdb.selected_thread() is None or gdb.selected_thread().ptid != self.thread:
            return None
        pc_name, sp_name = processor()[:2]
        sp, pc = pending.read_register(sp_name), pending.read_register(pc_name)
        if (unsigned(sp), unsigned(pc)) == self.real:
            # The id must be unlike that of other frames, and lie below the next one's.
            info = pending.create_unwind_info(FrameId(gdb.Value(self.registers[sp_name] - 16).cast(sp.type), pc))
            for name, value in self.registers.items():
                info.add_saved_register(name, gdb.Value(value).cast(pending.read_register(name).type))
            return info
        fiber = self.fiber
        if fiber.block not in fiber.hub.active and not fiber.is_main and unsigned(sp) > fiber.initial:
            # The first frame of the stack. What it returns to is decided when the fiber is resumed: a caller at 0, as at
            # the end of other stacks, and one more, so that gdb does not call the end corrupt.
            if fiber.has(unsigned(sp)) or unsigned(pc) == 0:
                info = pending.create_unwind_info(FrameId(sp, pc))
                info.add_saved_register(pc_name, gdb.Value(0).cast(pc.type))
                info.add_saved_register(sp_name, gdb.Value(max(fiber.block, unsigned(sp)) + 16).cast(sp.type))
                return info
        return None


class FrameId:
    def __init__(self, sp, pc):
        self.sp, self.pc = sp, pc


class Green(gdb.Command):
    """Green threads: `green` lists them, `green list` each of very many, `green ID` shows one, `green ID COMMAND` runs a command there, `green all
COMMAND` runs it in each, `green tls NAME [TYPE]` prints a thread-local, `green off` goes back to the OS thread,
`green gcore FILE` writes a core file with all stacks. ID is an id, HUB.ID or a name."""

    def __init__(self):
        super().__init__("green", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        try:
            self.answer(argument)
        except Trouble as trouble:
            raise gdb.GdbError(str(trouble))

    def answer(self, argument):
        who, _, command = argument.strip().partition(" ")
        if who in ("", "list"):
            seen = VIEW.fiber.block if VIEW.fiber is not None else None
            for line in listing(MOST if not who else None, lambda fiber: fiber.block == seen):
                gdb.write(line + "\n")
            return
        if who == "off":
            return VIEW.hide()
        if who == "gcore":
            return save_core(command.strip())
        if who == "tls":
            return show_thread_local(command)
        if who == "all":
            return self.each(command.strip() or "bt")
        # The hub of the selected OS thread goes first.
        here = gdb.selected_thread()
        fiber = find(who, hubs(), lambda thread: thread == here)
        if not command.strip():
            return self.show(fiber)
        self.run_in(fiber, command.strip())

    def select(self, fiber):
        """Brings a fiber into view; says what is to be said of one that cannot be, and returns whether it can."""
        if fiber.hub.thread is None:
            raise Trouble("green: the OS thread %d of %s is not here" % (fiber.hub.os_thread, fiber.label()))
        if fiber.hub.running is fiber:
            VIEW.hide()
            fiber.hub.thread.switch()
            return True
        if fiber.registers() is None:
            gdb.write("%s has not run yet: it has no frames\n" % fiber.label())
            return False
        VIEW.show(fiber)
        return True

    def show(self, fiber):
        if not self.select(fiber):
            return
        gdb.write("%s %s\n" % (fiber.label(), fiber.describe()))
        if VIEW.fiber is not None:
            gdb.write("frame 0 is the OS thread's; this thread's own begin here (`green off` ends this view)\n")
        gdb.execute("frame")

    def run_in(self, fiber, command):
        before, thread = VIEW.fiber, gdb.selected_thread()
        try:
            if self.select(fiber):
                command = "green " + command if command.startswith("tls ") else command
                output = gdb.execute(command, to_string=True)
                if VIEW.fiber is not None and command.split()[0] in ("bt", "backtrace", "where"):
                    output = without_innermost(output)
                gdb.write(output)
        finally:
            VIEW.hide()
            if thread is not None and thread.is_valid():
                thread.switch()
            if before is not None:
                VIEW.show(before)

    def each(self, command):
        found = hubs()
        for fiber in [fiber for hub in found for fiber in hub.fibers if fiber.state != FINISHED]:
            gdb.write("\n%s %s\n" % (fiber.label(), fiber.describe()))
            try:
                self.run_in(fiber, command)
            except gdb.error as error:
                gdb.write("%s\n" % error)


def without_innermost(output):
    """A backtrace without the frames that are the OS thread's."""
    lines = output.splitlines(keepends=True)
    level = gdb.selected_frame().level()
    first = next((index for index, line in enumerate(lines) if line.startswith("#%d " % level)), 0)
    return "".join(lines[first:])


def show_thread_local(argument):
    """Prints a thread-local variable of the thread in view, or of the one that runs: `NAME [TYPE]`."""
    name, _, kind = argument.strip().partition(" ")
    fiber = VIEW.fiber
    if fiber is None:
        here = gdb.selected_thread()
        hub = next((hub for hub in hubs() if hub.thread == here), None)
        if hub is None:
            raise Trouble("green: this OS thread has no green threads")
        fiber = hub.running
    offset, size = thread_local(name)
    # The table of blocks: entry 1, of two words, is the program's own block.
    block = word(word(fiber.hub.thread_pointer(fiber) + processor()[7]) + 16)
    if kind:
        shown = gdb.Value(block + offset).cast(gdb.lookup_type(kind).pointer()).dereference()
    else:
        shown = int.from_bytes(read(block + offset, min(size, 8)), "little")
    gdb.write("%s = %s\n" % (name, shown))


def save_core(name):
    """Writes a core file by gdb's own command, and then into it what that could not read: it reads a megabyte at a
    time, and leaves out the rest of a mapping from the first guard on. Stacks and blocks of thread-locals may be in one
    mapping with guards, as the kernel joins mappings that are alike."""
    if not name:
        raise Trouble("green: gcore needs the name of a file")
    gdb.execute("gcore " + name)
    with open(name, "r+b") as core:
        at, = struct.unpack("<Q", part(core, 0x20, 8))
        size, count = struct.unpack("<HH", part(core, 0x36, 4))
        headers = [struct.unpack("<IIQQQQQQ", part(core, at + index * size, 56)) for index in range(count)]
        for kind, _, offset, start, _, length, _, _ in headers:
            if kind == 1:
                for address, memory in left_out(start, start + length):
                    core.seek(offset + address - start)
                    core.write(memory)


def left_out(start, end):
    """What can be read of a mapping from its first guard on, but for zeros: addresses and bytes."""
    guarded = False
    for address in range(start, end, MEGABYTE):
        length = min(MEGABYTE, end - address)
        pieces = [(address, readable(address, length))]
        if pieces[0][1] is None:
            guarded = True
            pieces = [(page, readable(page, PAGE)) for page in range(address, address + length, PAGE)]
        if guarded:
            yield from ((at, memory) for at, memory in pieces if memory and memory.count(0) != len(memory))


def readable(address, length):
    """The bytes there, or None if one of them cannot be read."""
    try:
        return bytes(gdb.selected_inferior().read_memory(address, length))
    except gdb.MemoryError:
        return None


def part(file, at, length):
    file.seek(at)
    return file.read(length)


def thread_local(name):
    """Offset and size of a thread-local of the program's file. Neither gdb's symbols without type information nor a core
    file's gdb know where one lies, but the file's table of symbols does."""
    with open(gdb.current_progspace().filename, "rb") as file:
        image = file.read()
    at, = struct.unpack_from("<Q", image, 0x28)
    size, count = struct.unpack_from("<HH", image, 0x3A)
    sections = [struct.unpack_from("<IIQQQQII", image, at + index * size) for index in range(count)]
    # In a mangled path each part has its length in front.
    mangled = "".join("%d%s" % (len(part), part) for part in name.split("::")).encode()
    found = {}
    for _, kind, _, _, start, length, link, _ in sections:
        if kind != 2:
            continue
        names = sections[link][4]
        for symbol, info, _, _, value, size in struct.iter_unpack("<IBBHQQ", image[start:start + length]):
            if info & 15 == 6:
                text = image[names + symbol:image.index(b"\0", names + symbol)]
                if text == name.encode() or mangled in text:
                    found[value] = size
    if len(found) != 1:
        raise Trouble("green: %s thread-local variable of the program is named %s" % (
            "more than one" if found else "no", name))
    return found.popitem()


def forget(_):
    """The program ran: what was in view may be gone."""
    VIEW.fiber = None


green_threads.target = Target()
VIEW = View()
register_unwinder(None, VIEW, replace=True)
gdb.events.cont.connect(forget)
gdb.events.exited.connect(forget)
Green()
