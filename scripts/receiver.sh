#!/usr/bin/env bash
# receiver.sh DIR PORT TOKEN [ADDRESS]: a place to publish to, for the demo: an HTTP server on
# ADDRESS:PORT (default: 127.0.0.1) that takes POST requests to /cgi-bin/publish, refuses a wrong token, and keeps what it took as
# DIR/received/1/index.html, 2/index.html, … It runs in the foreground.
set -euo pipefail

dir=$(realpath -m "${1:?usage: receiver.sh DIR PORT TOKEN [ADDRESS]}") port=${2:?port} token=${3:?token}
address=${4:-127.0.0.1}
umask 077
mkdir -p "$dir/www/cgi-bin" "$dir/received"
printf '%s' "$token" > "$dir/token"
cat > "$dir/www/cgi-bin/publish" <<EOF
#!/bin/sh
umask 077
answer() { printf 'Status: %s\r\nContent-Type: text/plain\r\n\r\n%s\n' "\$1" "\$2"; exit 0; }
body=\$(busybox head -c "\$CONTENT_LENGTH")
token=\${body#token=}; token=\${token%%&*}
revision=\${body#*&revision=}; revision=\${revision%%&*}
[ "\$token" = "\$(busybox cat "$dir/token")" ] || answer '403 Forbidden' 'wrong token'
number=1
# A directory is made by one only, even when two publish at once.
until busybox mkdir "$dir/received/\$number" 2>/dev/null; do number=\$((number + 1)); done
printf '%s' "\${body#*&page=}" | busybox base64 -d > "$dir/received/\$number/index.html"
printf '%s\n' "\$revision" > "$dir/received/\$number/revision"
answer '200 OK' "publication \$number, revision \$revision"
EOF
chmod 700 "$dir/www/cgi-bin/publish"
exec busybox httpd -f -p "$address:$port" -h "$dir/www"
