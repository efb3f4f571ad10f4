package main

import "github.com/moby/buildkit/solver/pb"

// What src/engine/lower/ makes of one derivation and one effect, and two ops for the embedded
// engine to run: one that wakes the agent, one that runs another program.
func init() {
	definitions["lowered-plain"] = func() *pb.Definition {
		e := plain([]string{"build", "/nix/store/" + hello + ".drv"},
			tmpfs("/build", 8<<30),
			tmpfs("/tmp", 8<<30),
			tmpfs("/dev/shm", 1<<30),
			nix("/nix/store", "pontoon/slots/3/store", false),
			nix("/nix/store/"+shell, "store/"+shell, true))
		e.Network = pb.NetMode_NONE
		return whole(e, "build hello-1.0", "/nix/store/"+hello+".drv",
			"exec.meta.base", "exec.meta.network", "exec.mount.cache", "exec.mount.cache.sharing",
			"exec.mount.selector", "exec.mount.ssh", "exec.mount.tmpfs", "exec.mount.tmpfs.size")
	}
	definitions["lowered-strong"] = func() *pb.Definition {
		e := strong([]string{"build", "/nix/store/" + hello + ".drv"})
		e.Network = pb.NetMode_NONE
		return whole(e, "build hello-1.0", "/nix/store/"+hello+".drv",
			"exec.meta.base", "exec.meta.cdi", "exec.meta.network", "exec.meta.security",
			"exec.mount.ssh")
	}
	definitions["lowered-effect"] = func() *pb.Definition {
		e := plain([]string{"effect", "deploy"},
			tmpfs("/build", 8<<30),
			tmpfs("/tmp", 8<<30),
			tmpfs("/dev/shm", 1<<30),
			nix("/nix/store/"+shell, "store/"+shell, true),
			given("/run/secrets/TOKEN", "TOKEN"))
		return whole(e, "effect deploy", "effect:deploy",
			"exec.meta.base", "exec.mount.cache", "exec.mount.cache.sharing", "exec.mount.secret",
			"exec.mount.selector", "exec.mount.ssh", "exec.mount.tmpfs", "exec.mount.tmpfs.size")
	}
	definitions["lowered-whole"] = func() *pb.Definition {
		e := plain([]string{"effect", "deploy"},
			nix("/nix", "", false),
			tmpfs("/build", 8<<30),
			tmpfs("/tmp", 8<<30),
			tmpfs("/dev/shm", 1<<30),
			given("/run/secrets/TOKEN", "TOKEN"))
		return whole(e, "effect deploy", "effect:deploy",
			"exec.meta.base", "exec.mount.cache", "exec.mount.cache.sharing", "exec.mount.secret",
			"exec.mount.selector", "exec.mount.ssh", "exec.mount.tmpfs", "exec.mount.tmpfs.size")
	}
	definitions["lowered-image"] = func() *pb.Definition {
		d := &definition{}
		image := d.add(&pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{
			Identifier: "docker-image://docker.io/library/busybox:1.36",
		}}}, of(metadata("effect deploy: image docker.io/library/busybox:1.36", "source.image"),
			"effect:deploy"))
		e := rooted(
			tmpfs("/nix/store", 64<<20),
			tmpfs("/build", 8<<30),
			tmpfs("/tmp", 8<<30),
			tmpfs("/dev/shm", 1<<30),
			nix("/nix/store/"+shell, "store/"+shell, true),
			given("/run/secrets/TOKEN", "TOKEN"))
		return d.end(d.add(op(e, &pb.Input{Digest: image}), of(metadata("effect deploy",
			"exec.meta.base", "exec.mount.bind", "exec.mount.cache", "exec.mount.cache.sharing",
			"exec.mount.secret", "exec.mount.selector", "exec.mount.ssh", "exec.mount.tmpfs",
			"exec.mount.tmpfs.size"), "effect:deploy")))
	}
	definitions["lowered-dockerfile"] = func() *pb.Definition {
		d := &definition{}
		place := "/nix/store/" + shell + "/deploy"
		read := plain([]string{"export", place}, scratch("/.pontoon/export", 1))
		read.Network = pb.NetMode_NONE
		context := d.add(op(read), of(metadata("read "+place,
			"exec.meta.base", "exec.meta.network", "exec.mount.cache", "exec.mount.cache.sharing",
			"exec.mount.selector", "exec.mount.ssh"), "effect:deploy"))
		e := rooted(
			nix("/nix", "", false),
			tmpfs("/build", 8<<30),
			tmpfs("/tmp", 8<<30),
			tmpfs("/dev/shm", 1<<30),
			given("/run/secrets/TOKEN", "TOKEN"))
		return d.end(d.add(op(e, &pb.Input{Digest: context, Index: 1}),
			of(metadata("effect deploy",
				"exec.meta.base", "exec.mount.bind", "exec.mount.cache",
				"exec.mount.cache.sharing", "exec.mount.secret", "exec.mount.selector",
				"exec.mount.ssh", "exec.mount.tmpfs", "exec.mount.tmpfs.size"), "effect:deploy")))
	}
	definitions["embedded-agent"] = func() *pb.Definition {
		e := strong([]string{"store"})
		e.Network = pb.NetMode_NONE
		return whole(e, "pontoon: store", "store",
			"exec.meta.base", "exec.meta.cdi", "exec.meta.network", "exec.meta.security",
			"exec.mount.ssh")
	}
	definitions["embedded-program"] = func() *pb.Definition {
		e := exec(
			[]string{"/bin/busybox", "sh", "-c", "cat /secret > /store/made; echo $WORD >> /store/made"},
			[]string{"WORD=of Go's bytes"},
			scratch("/", 0),
			nix("/bin", "bin", true),
			nix("/store", "store", false),
			secret("/secret", "word", 0, 0, false))
		e.Network = pb.NetMode_NONE
		return whole(e, "a program", "program",
			"exec.meta.base", "exec.meta.network", "exec.mount.cache", "exec.mount.cache.sharing",
			"exec.mount.secret", "exec.mount.selector")
	}
}

// rooted is an effect whose root is an image.
func rooted(mounts ...*pb.Mount) *pb.ExecOp {
	e := plain([]string{"effect", "deploy"}, append([]*pb.Mount{
		given("/etc/passwd", "/etc/passwd"),
		given("/etc/group", "/etc/group"),
	}, mounts...)...)
	image := bind("/", 0)
	e.Mounts = append([]*pb.Mount{image, scratch("/.pontoon", 0)}, e.Mounts[1:]...)
	return e
}

func given(dest, id string) *pb.Mount {
	m := secret(dest, "0123456789abcdef-1/"+id, 0, 0, false)
	m.SecretOpt.Mode = 0o444
	m.Readonly = true
	return m
}

func of(md *pb.OpMetadata, node string) *pb.OpMetadata {
	md.ProgressGroup = &pb.ProgressGroup{Id: node, Name: md.Description["llb.customname"]}
	return md
}

func nix(dest, selector string, readonly bool) *pb.Mount {
	m := cache(dest, selector, readonly)
	m.CacheOpt.ID = "pontoon-nix"
	return m
}

func lowered(shape string, args []string, mounts ...*pb.Mount) *pb.ExecOp {
	e := exec(args, []string{"PONTOON_NONCE=0123456789abcdef-1", "PONTOON_SHAPE=" + shape},
		mounts...)
	e.Meta.Hostname = "localhost"
	return e
}

func plain(args []string, mounts ...*pb.Mount) *pb.ExecOp {
	return lowered("plain", append([]string{"/.pontoon/agent"}, args...),
		append([]*pb.Mount{
			scratch("/", 0),
			nix("/.pontoon/agent", "pontoon/agent/0123abcd", true),
			ssh("/.pontoon/tunnel", "pontoon"),
			nix("/.pontoon/store", "", false),
		}, mounts...)...)
}

func strong(args []string) *pb.ExecOp {
	e := lowered("strong", append([]string{"/nix/pontoon/agent/0123abcd"}, args...),
		scratch("/", 0), ssh("/.pontoon/tunnel", "pontoon"))
	e.Security = pb.SecurityMode_INSECURE
	e.CdiDevices = []*pb.CDIDevice{{Name: "pontoon.dev/store=nix"}}
	return e
}

func whole(e *pb.ExecOp, name, node string, caps ...string) *pb.Definition {
	md := metadata(name, caps...)
	md.ProgressGroup = &pb.ProgressGroup{Id: node, Name: name}
	d := &definition{}
	return d.end(d.add(op(e), md))
}
