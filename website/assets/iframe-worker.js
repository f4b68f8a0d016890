// Browsers refuse workers to a page that was opened as a file. There a worker is a hidden frame, which has what the search's
// script asks of a worker. The name is the one by which that script knows where it is.
"use strict"

if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      this.inside = this.frame.contentWindow
      this.inside.document.open() // before anything is put into it: otherwise Firefox shows an empty page later
      this.inside.document.write("<!doctype html><title>worker</title>")
      this.inside.document.close()
      this.inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.inside.importScripts = async (...urls) => {
        for (const each of urls) await this.load(each)
      }
      this.ready = this.load(url)
      this.ready.catch(() => this.dispatchEvent(new Event("error")))
    }

    load(url) {
      const script = this.inside.document.createElement("script")
      script.src = url
      const loaded = new Promise((resolve, reject) => {
        script.onload = resolve
        script.onerror = () => reject(new Error(`${url} cannot be loaded`))
      })
      this.inside.document.head.append(script)
      return loaded
    }

    postMessage(data) { // what is posted early waits for the script
      this.ready.then(() => this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data })), () => {})
    }

    terminate() {
      this.frame.remove()
    }
  }
  window.Worker = window.IFrameWorker
}
