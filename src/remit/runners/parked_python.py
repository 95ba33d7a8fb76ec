"""The program of a parked Python interpreter, as text: it runs inside the sandbox.

It waits for what to run, undoes every trace of itself that a program could meet by chance, and
runs it with `__main__`, `sys.argv`, `sys.path`, the environment and standard input as a fresh
interpreter has them. It imports nothing that a fresh interpreter has not. How a program ends is
left to the interpreter: an exception leaves this program too, and only its two frames are taken
off the traceback before it is shown. Imported by both ends: standard library only.
"""

from __future__ import annotations

PROGRAM = r"""
def park():
    import sys, posix
    main = sys.modules['__main__'].__dict__
    del main['park']
    if not (3, 11) <= sys.version_info < (3, 13):
        posix._exit(3)
    # The first compilation of a process costs more than all that is left to do.
    exec(compile('import sys\ndef f(a, *b):\n return [c for c in b if a + c]\nf(1)', '', 'exec'), {})
    posix.write(8, b'1')
    posix.close(8)
    told = b''
    while len(told) < 8 or len(told) < 8 + int(told[:8]):
        part = posix.read(7, 65536)
        if not part:
            posix._exit(0)
        told += part
    posix.close(7)
    fields = told[8:].split(b'\0')
    text = [each.decode('utf-8', 'surrogateescape') for each in fields]
    mode, empty, subject = text[:3]
    at = 4 + int(text[3])
    rest = text[4:at]
    sys.orig_argv[:] = text[at + 1:at + 1 + int(text[at])]
    at += 1 + int(text[at])
    if empty:
        null = posix.open('/dev/null', posix.O_RDONLY)
        posix.dup2(null, 0)
        posix.close(null)
    for name in list(posix.environ):
        posix.unsetenv(name)
    told = dict(zip(fields[at::2], fields[at + 1::2]))
    for name in told:
        posix.putenv(name, told[name])
    held = [posix.environ]
    if 'os' in sys.modules:
        held.append(sys.modules['os'].environ._data)
    for each in held:
        each.clear()
        each.update(told)

    def file(name):
        path = name if name[:1] == '/' else posix.getcwd() + '/' + name
        found = None
        for hook in sys.path_hooks:
            try:
                found = hook(path)
                break
            except ImportError:
                pass
        sys.path_importer_cache[path] = found
        if found is not None:
            sys.path[:0] = [path] if sys.flags.safe_path else []
            sys.path[0] = path
            return None
        try:
            number = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError as exc:
            said = "%s: can't open file %r: [Errno %d] %s\n"
            sys.stderr.write(said % (sys.orig_argv[0], path, exc.errno, exc.strerror))
            sys.exit(2)
        source = b''
        while part := posix.read(number, 1 << 20):
            source += part
        posix.close(number)
        if not sys.flags.safe_path:
            sys.path[0] = sys.modules['os'].path.dirname(sys.modules['os'].path.realpath(path))
        main['__file__'] = path
        main['__cached__'] = None
        loader = sys.modules['_frozen_importlib_external'].SourceFileLoader
        main['__loader__'] = loader('__main__', path)
        return source

    try:
        if mode == 'm':
            sys.argv[:] = ['-m', *rest]
            if not sys.flags.safe_path:
                sys.path[0] = posix.getcwd()
            import runpy
            runpy._run_module_as_main(subject, True)
        else:
            sys.argv[:] = [subject if mode == 'f' else '-c', *rest]
            source = file(subject) if mode == 'f' else subject
            if source is None:
                import runpy
                runpy._run_module_as_main('__main__', False)
            else:
                name = main['__file__'] if mode == 'f' else '<string>'
                source = compile(source, name, 'exec', dont_inherit=True)
                try:
                    exec(source, main)
                finally:
                    if mode == 'f':  # as the interpreter does before it shows an exception
                        sys.stderr.flush()
                        sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException:
        shown = sys.excepthook
        def hide(kind, value, trace):
            trace = trace.tb_next and trace.tb_next.tb_next
            value.__traceback__ = sys.last_traceback = trace
            shown(kind, value, trace)
        sys.excepthook = hide
        raise
park()
"""
