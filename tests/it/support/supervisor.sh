# shellcheck shell=sh
# Runs the servers that the tests of one run share, and ends them when the run is over.
#
# $1  pid of the process the run belongs to (nextest, or the test binary)
# $2  folder of the servers; removed at the end
# $3  command line of redis-server
# $4  command line of mongod
#
# It is the parent of both, so their pids cannot be reused before it has waited for them. It leaves early when a
# server dies, so that whoever started it sees the failure instead of waiting; the folder with the logs stays then.
eval "$3 &"
redis=$!
eval "$4 &"
mongod=$!

is_running() {
    kill -0 "$1" 2>/dev/null
}

while is_running "$1" && is_running "$redis" && is_running "$mongod"; do
    sleep 0.2
done
kill -KILL "$redis" "$mongod" 2>/dev/null
wait
is_running "$1" || rm -rf "$2"
